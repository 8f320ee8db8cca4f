"""Serve the pages and their files, with a policy that lets browsers load nothing else."""

import hashlib
import re
from collections.abc import Sequence
from http import HTTPStatus
from importlib import resources
from typing import NamedTuple

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from api.http.etags import IfNoneMatch, matches
from api.http.requests import ANY_QUERY
from blocks.settings import Settings

_FOLDER = resources.files("api.web") / "files"
_FILES_PATH = "/web"
_MEDIA_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


class Page(NamedTuple):
    """A page: its file, and whether it shows customers' pictures."""

    file: str
    shows_pictures: bool = False


PAGES = {
    "/": Page("home.html"),
    "/annotate": Page("annotate.html", shows_pictures=True),
    "/review": Page("review.html", shows_pictures=True),
    "/console": Page("console.html", shows_pictures=True),
}
"""The pages by their paths."""
PUBLIC = [rf"^{re.escape(path)}$" for path in PAGES] + [rf"^{_FILES_PATH}/"]
"""Patterns of the paths that want no key."""


def _policy(pictures: Sequence[str]) -> str:
    """Return what a page may load: its own files, and pictures of these sources as well."""
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            " ".join(["img-src 'self' data:", *pictures]),
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def handlers(settings: Settings) -> list[HTTPRouteHandler]:
    """Return the routes of all pages and of their files."""
    # Customers' pictures are anywhere, unless the operator has said where.
    origins = settings.allowed_picture_origins() or ["http:", "https:"]
    files = sorted(each.name for each in _FOLDER.iterdir() if not each.name.endswith(".html"))
    return [
        *(
            _handler(path, page.file, origins if page.shows_pictures else ())
            for path, page in PAGES.items()
        ),
        *(_handler(f"{_FILES_PATH}/{file}", file) for file in files),
    ]


def _handler(path: str, file: str, pictures: Sequence[str] = ()) -> HTTPRouteHandler:
    content = (_FOLDER / file).read_bytes()
    # Weak, because it may go out compressed or not.
    etag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'
    # A browser asks each time whether it has the latest one: after an upgrade all files fit together.
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    media_type = _MEDIA_TYPES[file.rpartition(".")[2]]
    if file.endswith(".html"):
        headers["Content-Security-Policy"] = _policy(pictures)

    @get(path, include_in_schema=False, sync_to_thread=False, opt=ANY_QUERY)
    def serve(if_none_match: IfNoneMatch = None) -> Response[bytes]:
        if if_none_match is not None and matches(if_none_match, etag):
            return Response(b"", status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return serve
