"""Escape text of others for Markdown, which then shows it as it is."""

import re
from urllib.parse import quote, urlsplit

# CommonMark: every ASCII punctuation character may be escaped, and means itself then. No autolink, of
# CommonMark's or GitHub's, survives it, since each needs a colon, a dot or an at sign as it stands.
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_NOT_SHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+")
_CODE = re.compile(r"[\w/:.,;@%+=~#?!'-]([\w/:.,;@%+=~#?!' -]*[\w/:.,;@%+=~#?!'-])?")
_URL_SAFE = "/:?&=%#~,;+@-._"


def text(written: object) -> str:
    """Return `written` so that Markdown shows exactly these characters, in a table's cell too.

    White space and control characters become one space.
    """
    line = _NOT_SHOWN.sub(" ", str(written)).strip()
    return _PUNCTUATION.sub(lambda match: _HTML.get(match[1], f"\\{match[1]}"), line)


def code(written: str) -> str:
    """Return `written` as code, or as text where some character could end the code early."""
    return f"`{written}`" if _CODE.fullmatch(written) else text(written)


def link(shown: str, url: str) -> str:
    """Return a link that shows `shown`; `shown` alone where `url` is neither http nor https."""
    if urlsplit(url).scheme not in {"http", "https"}:
        return text(shown)
    return f"[{text(shown)}](<{quote(url, safe=_URL_SAFE)}>)"
