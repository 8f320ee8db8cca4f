"""Addresses of objects: `s3://`, `gs://` and the https forms of the same."""

import re
from enum import StrEnum
from urllib.parse import unquote, urlsplit

import msgspec

from blocks.domain.errors import Terminal


class StoreType(StrEnum):
    """The protocol of a store."""

    S3 = "s3"
    GCS = "gcs"

    @property
    def scheme(self) -> str:
        """The scheme of the URLs of its objects: `s3` or `gs`."""
        return "gs" if self is StoreType.GCS else "s3"

    @classmethod
    def of_scheme(cls, scheme: str) -> "StoreType | None":
        """Return the store whose URLs have that scheme, in small letters; None for another."""
        return next((store for store in cls if store.scheme == scheme), None)


class InvalidObjectUrl(Terminal):
    """The URL does not name one object in S3 or GCS."""

    code = "invalid_manifest_url"


class ObjectUrl(msgspec.Struct, frozen=True):
    """One object: `key` is the plain name, not percent-encoded."""

    store: StoreType
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.store.scheme}://{self.bucket}/{self.key}"

    def lies_in(self, place: "ObjectUrl") -> bool:
        """Return True if `place` is this object, its bucket (without a key), or a folder above it.

        A key that ends in a slash is a folder alone.
        """
        key = place.key.lstrip("/")
        folder = key.rstrip("/")
        is_below = not folder or self.key == key or self.key.startswith(f"{folder}/")
        return (self.store, self.bucket) == (place.store, place.bucket) and is_below


_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]")
_VIRTUAL_HOSTED = re.compile(r"(?P<bucket>.+)\.s3(\.[a-z0-9-]+)?\.amazonaws\.com")
_PATH_STYLE = re.compile(r"s3(\.[a-z0-9-]+)?\.amazonaws\.com")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_GCS_HOST = "storage.googleapis.com"
_FORMS = (
    "Use s3://bucket/key, gs://bucket/key, https://bucket.s3.amazonaws.com/key or "
    "https://storage.googleapis.com/bucket/key."
)


def is_bucket_name(text: str) -> bool:
    """Return True if S3 or GCS could have a bucket of that name."""
    return _BUCKET.fullmatch(text) is not None


def parse_object_url(url: str) -> ObjectUrl:
    """Return the object that `url` names.

    Raises:
        InvalidObjectUrl: another scheme or host, no key, or a prefix in its place.
    """
    scheme, separator, rest = url.partition("://")
    if "@" in rest.partition("/")[0]:
        raise InvalidObjectUrl("The URL has a user or password in it; send credentials instead.")
    scheme = scheme.lower() if separator else ""
    if store := StoreType.of_scheme(scheme):
        bucket, _, key = rest.partition("/")
    elif scheme == "https":
        store, bucket, key = _parse_https(url)
    else:
        raise InvalidObjectUrl(f"The scheme is not supported. {_FORMS}")
    if not is_bucket_name(bucket):
        raise InvalidObjectUrl(f"{bucket!r} is not a bucket name. {_FORMS}")
    if not key or key.endswith("/"):
        raise InvalidObjectUrl(f"The URL names no object, only a place for objects. {_FORMS}")
    return ObjectUrl(store, bucket, key)


def parse_place(url: str) -> ObjectUrl:
    """Return a bucket, or a place in one: `s3://bucket` or `gs://bucket/prefix`; the key may be empty.

    Raises:
        ValueError: it is neither.
    """
    scheme, separator, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    store = StoreType.of_scheme(scheme)
    if not separator or store is None or not is_bucket_name(bucket):
        raise ValueError("This must be s3://bucket or gs://bucket.")
    return ObjectUrl(store, bucket, key)


def _parse_https(url: str) -> tuple[StoreType, str, str]:
    # urlsplit would drop these, and another object would be read.
    if _CONTROL.search(url):
        raise InvalidObjectUrl(f"The URL has control characters in it. {_FORMS}")
    try:
        parts = urlsplit(url)
        host = parts.netloc.lower()
    except ValueError as error:
        raise InvalidObjectUrl(f"The URL is malformed. {_FORMS}") from error
    if parts.query or parts.fragment:
        raise InvalidObjectUrl(
            "A URL with a query, such as a presigned one, is not supported; send credentials."
        )
    # S3 reads a plus sign as a space, and GCS does not.
    written = parts.path if host == _GCS_HOST else parts.path.replace("+", " ")
    try:
        path = unquote(written, errors="strict").removeprefix("/")
    except UnicodeDecodeError as error:
        raise InvalidObjectUrl(f"The URL's path is not UTF-8. {_FORMS}") from error
    if match := _VIRTUAL_HOSTED.fullmatch(host):
        return StoreType.S3, match["bucket"], path
    bucket, _, key = path.partition("/")
    if _PATH_STYLE.fullmatch(host):
        return StoreType.S3, bucket, key
    if host == _GCS_HOST:
        return StoreType.GCS, bucket, key
    raise InvalidObjectUrl(f"The host is neither S3 nor GCS. {_FORMS}")
