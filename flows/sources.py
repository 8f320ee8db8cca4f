"""Which objects of a bucket are manifests that a slot has to submit. No Prefect, no SQL."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from blocks.buckets import Entry
from blocks.errors import RefineryError

_PLACEHOLDER = re.compile(r"\{date(?::([^{}]*))?\}")
_DEFAULT_FORMAT = "%Y-%m-%d"
_DIRECTIVES = {
    "%Y": r"\d{4}",
    "%m": r"\d{2}",
    "%d": r"\d{2}",
    "%H": r"\d{2}",
    "%M": r"\d{2}",
    "%j": r"\d{3}",
}


class InvalidSource(RefineryError):
    """A prefix or template that names no manifests."""

    code = "invalid_source"


class Verdict(StrEnum):
    """Why a manifest is submitted by this slot, or left."""

    DUE = "due"
    STILL_YOUNG = "still young"
    """It may still be written, so it is left for the next slot."""
    OF_A_LATER_DATE = "of a later date"
    BEFORE_THE_STREAM = "before the stream began"
    """`catch_up` would have it submitted."""


class Slot(msgspec.Struct, frozen=True):
    """What a run of a schedule is for: `at` is when it was due, `now` when it runs."""

    at: datetime
    now: datetime
    stream_began_at: datetime
    min_age: timedelta
    catch_up: bool


class Source:
    """A prefix of keys, such as `in/`, or one with the date of a slot: `in/{date:%Y/%m/%d}/`.

    Dates are of the time zone `timezone`. Manifests are the objects below it whose names end with one of
    `suffixes`.

    Raises:
        InvalidSource: the template has two dates, or directives that are no numbers of fixed length.
    """

    def __init__(self, template: str, *, timezone: str, suffixes: Sequence[str]) -> None:
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
        """What all keys begin with."""
        self._suffixes = tuple(suffixes)
        self._format = (parts[1] or _DEFAULT_FORMAT) if len(parts) > 1 else None
        after = re.escape(parts[-1]) if self._format else ""
        self._pattern = re.compile(f"{re.escape(parts[0])}({_regex(self._format)}){after}")

    def is_manifest(self, key: str) -> bool:
        """Whether the key is below the prefix, and of a manifest."""
        return key.endswith(self._suffixes) and self._pattern.match(key) is not None

    def judge(self, entry: Entry, slot: Slot) -> Verdict:
        """Whether the slot has to submit it, if nobody has."""
        date = self._date_of(entry.key)
        current = self._current(slot.at)
        if slot.now - entry.modified_at < slot.min_age:
            return Verdict.STILL_YOUNG
        if date is not None and current is not None and date > current:
            return Verdict.OF_A_LATER_DATE
        is_new = entry.modified_at >= slot.stream_began_at or (date and date == current)
        return Verdict.DUE if is_new or slot.catch_up else Verdict.BEFORE_THE_STREAM

    def _current(self, at: datetime) -> datetime | None:
        """The date of a slot, as exact as the format is."""
        if self._format is None:
            return None
        return datetime.strptime(at.astimezone(self._zone).strftime(self._format), self._format)  # noqa: DTZ007

    def _date_of(self, key: str) -> datetime | None:
        match = self._pattern.match(key)
        if self._format is None or match is None:
            return None
        try:
            return datetime.strptime(match[1], self._format)  # noqa: DTZ007 - compared with its like
        except ValueError:
            return datetime.max  # no date: never due  # noqa: DTZ901


def _regex(format_: str | None) -> str:
    if format_ is None:
        return ""
    parts = re.split(r"(%.)", format_)
    unknown = [part for part in parts[1::2] if part not in _DIRECTIVES]
    if unknown or len(parts) == 1:
        raise InvalidSource(
            f"The date {format_!r} may have {', '.join(_DIRECTIVES)} in it, and has to have one."
        )
    return "".join(_DIRECTIVES.get(part) or re.escape(part) for part in parts)


def utc(at: datetime) -> datetime:
    """The instant; a time without a zone is UTC."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)
