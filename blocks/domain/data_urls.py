"""Judge and normalize the addresses of customers' data."""

import re

import can_ada

URL_CHARACTERS_MAX = 2048

# WHATWG parsers forgive spaces, backslashes and missing slashes; an absolute URL has none of these.
# The letters are spelled out, because ignoring case would let in other letters that fold to them.
_HTTP_URL = re.compile(r"[hH][tT][tT][pP][sS]?://[^\s\x00-\x1f\x7f/\\?#][^\s\x00-\x1f\x7f]*")
# A key may have white space, but no characters that control a terminal.
_BUCKET_URL = re.compile(
    r"(?:[sS]3|[gG][sS])://[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9](?:/[^\x00-\x1f\x7f\x85]*)?"
)


def is_data_url(text: str) -> bool:
    """Return True if `text` is an absolute http, https, s3 or gs URL with a valid host.

    Hosts of http and https URLs are judged by the WHATWG URL standard, those of s3 and gs URLs by
    the rules for bucket names.
    """
    if len(text) > URL_CHARACTERS_MAX:
        return False
    if _HTTP_URL.fullmatch(text):
        return bool(can_ada.can_parse(text))
    return _BUCKET_URL.fullmatch(text) is not None


def normalize_url(text: str) -> str:
    """Return an http or https URL that `is_data_url` accepts as the WHATWG standard writes it.

    Host in Punycode, everything in ASCII, no default port, no dot segments; and no fragment, which
    is never sent.
    """
    url = can_ada.parse(text)
    url.hash = ""
    return str(url.href)


def has_user(text: str) -> bool:
    """Return True if the URL, one that `is_data_url` accepts, has a user or a password in it."""
    return bool(can_ada.parse(text).has_credentials())
