"""Options that help annotators: instructions, and descriptions and hotkeys of the choices."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from api.cli.exits import UsageError
from api.cli.files import read_text


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What annotators are given beside the question."""

    instructions: Annotated[
        Path | None,
        Parameter(
            help="A file of Markdown that annotators read first; `-` is standard input.",
            allow_leading_hyphen=True,
        ),
    ] = None
    describe: Annotated[
        tuple[str, ...],
        Parameter(help="OPTION=TEXT: when that option is the right one. Once for each."),
    ] = ()
    hotkey: Annotated[
        tuple[str, ...],
        Parameter(help="OPTION=K: the key that chooses that option. Once for each."),
    ] = ()

    def body(self) -> dict[str, Any]:
        """Return the fields of the API that were given, but for those of the label_spec."""
        return {} if self.instructions is None else {"instructions": read_text(self.instructions)}

    def details(self, options: Sequence[str]) -> dict[str, Any]:
        """Return the fields of a label_spec with these options that were given.

        Raises:
            UsageError: something is said of what is none of the options, or is said twice.
        """
        found: dict[str, dict[str, str]] = {}
        for field, said in (("description", self.describe), ("hotkey", self.hotkey)):
            for each in said:
                option = _option_of(each, options)
                detail = found.setdefault(option, {"option": option})
                if field in detail:
                    raise UsageError(f"{option!r} has two of them: {each!r} is the second.")
                detail[field] = each[len(option) + 1 :]
        return {"option_details": list(found.values())} if found else {}


def _option_of(said: str, options: Sequence[str]) -> str:
    """Return the option that stands before an equals sign; options may have such signs in them."""
    found = [option for option in options if said.startswith(f"{option}=")]
    if not found:
        raise UsageError(f"{said!r} does not begin with one of the options and an equals sign.")
    return max(found, key=len)


GUIDANCE = Guidance()
