"""Judge which objects of a bucket are manifests that a slot has to submit. No Prefect, no SQL."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from blocks.buckets.protocol import Entry
from blocks.domain.errors import RefineryError

_PLACEHOLDER = re.compile(r"\{date(?::([^{}]*))?\}")
_DEFAULT_FORMAT = "%Y-%m-%d"
_DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "j": 3}
# The parts that a date may have, in any order. Without its year the same date would come again.
_DATES = ["Y", "Ym", "Ymd", "Yj", "YmdH", "YjH", "YmdHM", "YjHM"]
_PATTERN_CHARACTERS = re.compile(r"[*?]")
# Programs leave markers beside their output; Hadoop and Spark ignore these names too.
_MARKER = re.compile(r"(^|/)[_.][^/]*$|/$")


class InvalidSource(RefineryError):
    """A prefix or template that names no manifests."""

    code = "invalid_source"


class Verdict(StrEnum):
    """Say why a manifest is submitted by this slot, or left."""

    DUE = "due"
    STILL_YOUNG = "still young (find.min_age_s)"
    """It may still be written, so it is left for the next slot."""
    OF_A_LATER_DATE = "of a later date"
    NO_SUCH_DATE = "of a date that no calendar has"
    BEFORE_THE_STREAM = "before the stream began (find.catch_up takes it)"


class Slot(msgspec.Struct, frozen=True):
    """Describe a run of a schedule: `at` is when it was due, `now` when it runs."""

    at: datetime
    now: datetime
    stream_began_at: datetime
    min_age: timedelta
    catch_up: bool


class Source:
    """Interpret a prefix of keys, such as `in/`, or one with a slot's date: `in/{date:%Y/%m/%d}/`.

    Dates are of the time zone `timezone`. Manifests are the objects below it whose names end with one of
    `suffixes`, in capital letters or small ones.

    Raises:
        InvalidSource: the template has two dates, or one that does not name a year and what is between
            the year and its smallest part, in numbers of fixed length.
    """

    def __init__(self, template: str, *, timezone: str, suffixes: Sequence[str]) -> None:
        self.template = template
        parts = _PLACEHOLDER.split(template)
        if len(parts) > 3 or "{" in parts[0] + parts[-1]:  # noqa: PLR2004 - before, date, after
            raise InvalidSource(
                f"The source {template!r} is neither a prefix nor one with a single {{date:…}}."
            )
        try:
            self._zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise InvalidSource(f"There is no time zone {timezone!r}.") from error
        self.prefix = parts[0]
        """The beginning of all keys."""
        self.suffixes = tuple(suffixes)
        self._endings = tuple(suffix.lower() for suffix in suffixes)
        self._format = (parts[1] or _DEFAULT_FORMAT) if len(parts) > 1 else None
        date = "" if self._format is None else _date_pattern(self._format)
        after = re.escape(parts[-1]) if self._format else ""
        self._pattern = re.compile(f"{re.escape(parts[0])}{date}{after}")

    def is_below(self, key: str) -> bool:
        """Return whether the key lies below the prefix, with a date where the template has one."""
        return self._pattern.match(key) is not None

    def is_manifest(self, key: str) -> bool:
        """Return whether the key is below the prefix, and is named like a manifest."""
        return key.lower().endswith(self._endings) and self.is_below(key)

    def is_passed_over(self, key: str) -> bool:
        """Return whether the key lies where manifests do, named neither like one nor like a marker."""
        return self.is_below(key) and not self.is_manifest(key) and not _MARKER.search(key)

    def folder_beside(self, key: str) -> str | None:
        """Return the folder of a key that only begins like the prefix: `data/` for the prefix `da`."""
        begun, slash, _ = key.removeprefix(self.prefix).partition("/")
        is_folder = self.prefix.endswith("/") or not self.prefix
        return f"{self.prefix}{begun}/" if slash and begun and not is_folder else None

    def check_empty(self) -> str:
        """Return a sentence for a source that no key begins with.

        Raises:
            InvalidSource: it is written like a pattern or a path, which it is not.
        """
        if _PATTERN_CHARACTERS.search(self.prefix):
            raise InvalidSource(
                f"No key begins with {self.prefix!r}: the source is a prefix of keys, in which * and ? "
                "stand for themselves. Everything below a prefix is found, however deep."
            )
        if self.prefix.startswith("/"):
            raise InvalidSource(
                f"No key begins with {self.prefix!r}: keys have no slash at their beginning. "
                f"Write {self.template.lstrip('/')!r}."
            )
        return f"no key begins with {self.prefix!r}"

    def judge(self, entry: Entry, slot: Slot) -> Verdict:
        """Return whether the slot has to submit the manifest, if the stream has no job of it."""
        current = self._current(slot.at)
        if slot.now - entry.modified_at < slot.min_age:
            return Verdict.STILL_YOUNG
        try:
            date = self._date_of(entry.key)
        except ValueError:
            return Verdict.NO_SUCH_DATE
        if date is not None and current is not None and date > current:
            return Verdict.OF_A_LATER_DATE
        is_new = entry.modified_at >= slot.stream_began_at or (date and date == current)
        return Verdict.DUE if is_new or slot.catch_up else Verdict.BEFORE_THE_STREAM

    def _current(self, at: datetime) -> datetime | None:
        """Return the date of a slot, as exact as the format is."""
        if self._format is None:
            return None
        match = re.match(
            _date_pattern(self._format), at.astimezone(self._zone).strftime(self._format)
        )
        assert match is not None  # the pattern is of what the format writes
        return _date(match)

    def _date_of(self, key: str) -> datetime | None:
        match = self._pattern.match(key)
        return _date(match) if self._format and match else None


def _date_pattern(format_: str) -> str:
    """Return a regular expression with a group for each part of a date."""
    parts = re.split(r"(%.)", format_)
    names = {part[1] for part in parts[1::2]}
    if names not in map(set, _DATES):
        raise InvalidSource(
            f"The date {format_!r} has to name a year and all between that and its smallest part: "
            "%Y, or also %m, %m and %d, or %j; a day may have %H, or %H and %M. There are no others."
        )
    found: set[str] = set()
    pattern = ""
    for n, part in enumerate(parts):
        if n % 2 == 0:
            pattern += re.escape(part)
        elif part[1] in found:
            pattern += f"(?P={part[1]})"  # named again, as in %Y/%m/%Y-%m-%d
        else:
            found.add(part[1])
            pattern += rf"(?P<{part[1]}>[0-9]{{{_DIGITS[part[1]]}}})"
    return pattern


def _date(match: re.Match[str]) -> datetime:
    """Return the date in UTC, to be compared with others; ValueError where no calendar has it."""
    said = {name: int(digits) for name, digits in match.groupdict().items()}
    year, month, day = said["Y"], said.get("m", 1), said.get("d", 1)
    first = datetime(year, month, day, said.get("H", 0), said.get("M", 0), tzinfo=UTC)
    if "j" not in said:
        return first
    at = first + timedelta(days=said["j"] - 1)
    if at.year != year:
        raise ValueError("The year has no such day.")
    return at


def utc(at: datetime) -> datetime:
    """Return the instant; a time without a zone is taken as UTC."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)
