"""Which web pages may ask the API from a browser (Fetch standard, CORS)."""

from litestar.config.cors import CORSConfig

_KEPT_S = 600
_ASKED = ["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match"]
_SHOWN = [
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
]


def config(origins: list[str]) -> CORSConfig | None:
    """Return what Litestar needs to let pages of these origins ask; None, where there are none.

    Cookies are not allowed: a key is in a header, which no browser sends by itself.
    """
    if not origins:
        return None
    return CORSConfig(
        allow_origins=origins,
        allow_methods=["DELETE", "GET", "HEAD", "PATCH", "POST"],
        allow_headers=_ASKED,
        expose_headers=_SHOWN,
        max_age=_KEPT_S,
    )
