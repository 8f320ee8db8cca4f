"""Match almost every good line by one regular expression, for Polars.

A line that matches is good, and its fields lie where `flows.reading.fast_path` looks for them. A line
that does not match may be good all the same: metadata nested deeper, the keys in the other order, a
host that takes the whole URL standard to judge. `blocks.lines.exact_path` decides about those.
"""

import re

_WS = r"[ \t]*"

# RFC 8259. A surrogate stands in a pair or not at all.
_ESCAPE = (
    r'\\(?:["\\/bfnrt]|u(?:[0-9a-cefA-CEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}'
    r"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
)
_STRING = rf'"(?:[^"\\\x00-\x1f]|{_ESCAPE})*"'
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_SCALAR = rf"{_STRING}|{_NUMBER}|true|false|null"

# Hosts about which all readers agree: labels of plain letters, no punycode (xn--), and a last label
# that cannot be part of an IPv4 address.
_LABEL_FROM = "(?:[{}a-wyzA-WYZ][0-9A-Za-z_-]*|[xX](?:[0-9_a-mo-zA-MO-Z][0-9A-Za-z_-]*)?)"
_HOST = rf"(?:{_LABEL_FROM.format('0-9')}\.)*{_LABEL_FROM.format('')}"
_PATH = r"[!#-\[\]-~]*"  # printable ASCII but for quotes and backslashes
_KEY = r"[ !#-\[\]-~]*"  # in which spaces may be, too
_BUCKET = "[0-9A-Za-z][0-9A-Za-z._-]{1,61}[0-9A-Za-z]"
_URL = rf"https?://{_HOST}(?::[0-9]{{1,4}})?(?:[/?#]{_PATH})?|(?:s3|gs)://{_BUCKET}(?:/{_KEY})?"

_NESTING_MAX = 2  # beyond the metadata itself: each level makes the expression four times as long


def _several(item: str) -> str:
    return rf"{_WS}(?:{item}{_WS}(?:,{_WS}{item}{_WS})*)?"


def _object(value: str) -> str:
    return rf"\{{{_several(rf'{_STRING}{_WS}:{_WS}(?:{value})')}\}}"


def _nested(levels: int) -> str:
    if levels == 0:
        return _SCALAR
    inner = _nested(levels - 1)
    return rf"{_SCALAR}|{_object(inner)}|\[{_several(f'(?:{inner})')}\]"


_METADATA = _object(_nested(_NESTING_MAX))

HEAD = '{"data_url":'
"""How a good line begins; after at most one space follows the URL in its quotes."""

GOOD_LINE = rf'^{re.escape(HEAD)} ?"(?:{_URL})"(?:,{_WS}"metadata"{_WS}:{_WS}{_METADATA})?\}}$'
"""Matches only good lines, but for the length of the line and of its URL."""

TEXT_HEAD = '{"text":'
"""How a good line that has a text begins; after at most one space follows the text in its quotes."""

GOOD_TEXT_LINE = (
    rf'^{re.escape(TEXT_HEAD)} ?{_STRING}(?:,{_WS}"metadata"{_WS}:{_WS}{_METADATA})?\}}$'
)
"""Matches only good lines, but for the length of the line, and a text that is blank or has U+0000."""

TEXT_BODY = r'^((?:[^"\\]|\\.)*)"'
"""Matches the rest of a JSON string behind its first quote; its group has all but the last one."""

TURNED_HEAD = '{"metadata"'
"""How a line begins that has its fields in the other order."""

TURNED_TAIL = rf',{_WS}"data_url":{_WS}"[^"\\]*"\}}$'
"""Matches how such a line ends, from the comma before its URL on.

If the fields before and after that comma make a good line in their usual order, the line is good: each
field is followed by a comma or a closing brace in either order.
"""
