"""What is asked about each task: the question, the options, and what helps to choose among them."""

import unicodedata
from collections.abc import Iterator
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from blocks.bodies.fields import Body, Checks, Fault
from blocks.domain import limits
from blocks.domain.model import OptionDetail
from blocks.domain.wrong_values import HINTS_MAX, did_you_mean

# Rules of the `checks`, for the schema alone: as patterns of the types their messages would be worse.
_NOT_BLANK = {"pattern": r"\S"}
_DISTINCT = {"uniqueItems": True}
_ONE_CHARACTER = {"minLength": 1, "maxLength": 1}

_Option = Annotated[
    str, Meta(max_length=limits.OPTION_CHARACTERS_MAX, extra_json_schema=_NOT_BLANK)
]


def _check_question(question: str) -> None:
    if not question.strip():
        raise ValueError("The question must not be empty.")


def _check_options(options: list[str]) -> None:
    if not all(option.strip() for option in options):
        raise ValueError("An option must not be empty.")
    if len(set(options)) != len(options):
        raise ValueError("The options must be distinct.")


def _check_description(description: str) -> None:
    if not description.strip():
        raise ValueError("The description must not be empty; null stands for none.")


def _check_hotkey(hotkey: str) -> None:
    # A mark stands on the character before it.
    is_one = len(hotkey) == 1 and not unicodedata.category(hotkey).startswith("M")
    if not (is_one and hotkey.isprintable() and not hotkey.isspace()):
        raise ValueError("A hotkey must be one printable character, and no space.")


class OptionDetailBody(Body, frozen=True, kw_only=True):
    """What helps annotators to choose one of the options."""

    checks: ClassVar[Checks] = {"description": _check_description, "hotkey": _check_hotkey}

    option: str
    """The option that this is about, as it stands in `options`."""
    description: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=limits.OPTION_DESCRIPTION_CHARACTERS_MAX,
                extra_json_schema=_NOT_BLANK,
            ),
        ]
        | None
    ) = None
    """When it is the right one, in a sentence or two."""
    hotkey: Annotated[str, Meta(extra_json_schema=_NOT_BLANK | _ONE_CHARACTER)] | None = None
    """One printable character: the key that chooses it. Capital and small letters are the same key."""


class LabelSpecBody(Body, frozen=True, kw_only=True):
    """The question, and the options to choose from."""

    checks: ClassVar[Checks] = {"question": _check_question, "options": _check_options}

    question: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=limits.QUESTION_CHARACTERS_MAX,
            extra_json_schema=_NOT_BLANK,
        ),
    ]
    """What annotators are asked about each task; not blank."""
    options: Annotated[
        list[_Option],
        Meta(
            min_length=limits.OPTIONS_MIN,
            max_length=limits.OPTIONS_MAX,
            extra_json_schema=_DISTINCT,
        ),
    ]
    """What they can choose from: distinct texts, none of them blank."""
    option_details: Annotated[list[OptionDetailBody], Meta(max_length=limits.OPTIONS_MAX)] = (
        msgspec.field(default_factory=list)
    )
    """Descriptions and hotkeys of options, each option at most once; those that need neither are left
    out."""

    def joint_faults(self) -> Iterator[Fault]:
        """Yield details of what is no option, and options and hotkeys that come twice."""
        hints = iter(range(HINTS_MAX))
        options = set(self.options) if self.option_details else ()
        described: set[str] = set()
        hotkeys: set[str] = set()
        for n, detail in enumerate(self.option_details):
            place = f"option_details[{n}]"
            if detail.option not in options:
                hint = did_you_mean(detail.option, self.options, hints)
                yield Fault(f"{place}.option", f"This is none of the options.{hint}")
            elif detail.option in described:
                yield Fault(f"{place}.option", "This option has an entry before this one.")
            described.add(detail.option)
            if detail.hotkey is None:
                continue
            if (key := detail.hotkey.casefold()) in hotkeys:
                message = f"Two options cannot have the hotkey {detail.hotkey!r}."
                yield Fault(f"{place}.hotkey", message)
            hotkeys.add(key)

    def list_details(self) -> list[OptionDetail] | None:
        """Return the details to record; None if there are none."""
        return [
            OptionDetail(option=each.option, description=each.description, hotkey=each.hotkey)
            for each in self.option_details
            if each.description or each.hotkey
        ] or None
