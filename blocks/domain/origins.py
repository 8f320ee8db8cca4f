"""Origins of web pages (RFC 6454): what a browser says of the page that asks."""

import re

import can_ada

ANY = "*"
_ORIGIN = re.compile(r"https?://[^\s/\\?#@*]+", re.ASCII | re.IGNORECASE)


def parse_origins(text: str) -> list[str]:
    """Return the origins in `text`, separated by commas, as browsers write them; or `*` alone, for any.

    Raises:
        ValueError: one of them is no scheme, host and port, or `*` has others beside it.
    """
    found = list(dict.fromkeys(_origin(part) for part in map(str.strip, text.split(",")) if part))
    if ANY in found and len(found) > 1:
        raise ValueError("* stands for every origin; leave the others out.")
    return found


def _origin(text: str) -> str:
    if text == ANY:
        return text
    if not _ORIGIN.fullmatch(text) or not can_ada.can_parse(text):
        raise ValueError(
            f"{text!r} is not an origin. Give http or https, a host and, if it has one, a port, without "
            "a path and without a slash at the end, such as https://labels.example.com or "
            "http://localhost:5173."
        )
    return str(can_ada.parse(text).origin)
