"""Times as people write them on a command line: `2d` ago, or a date."""

import re
from datetime import UTC, datetime, timedelta

from api.cli.exits import UsageError

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
AGO = "such as 45m, 12h or 2d before now, or a time such as 2026-11-28 or 2026-11-28T09:30Z"


def read_time(text: str | None) -> str | None:
    """Return a time as the API takes it; None for none.

    Raises:
        UsageError: it is neither a time nor a while.
    """
    if text is None:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            at = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            at = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no time: {AGO}.") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()
