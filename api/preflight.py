"""Trying out what a job will need, before it is accepted."""

from collections.abc import Callable, Iterator
from http import HTTPStatus

from api.errors import ApiError, Fault
from blocks import magic
from blocks.buckets import Bucket, open_bucket
from blocks.credentials import decode_credentials
from blocks.egress import Egress
from blocks.errors import NoValidLines, ObjectNotFound, RefineryError
from blocks.lines import find_no_good_line
from blocks.model import Pin
from blocks.object_urls import NO_PATTERNS, StoreType, parse_object_url
from blocks.settings import Settings
from blocks.store.jobs import NewJob

_PROBE = "refinery-preflight"
_FIRST_BYTES = 64 * 1024
_FIRST_LINES = 10


def check_preflight(new: NewJob, settings: Settings) -> None:
    """Read from the manifest, begin an upload to the delivery's place, and resolve the callback's host.

    Raises:
        ApiError: 422, with a code for each that does not work.
    """
    faults = list(_faults(new, settings))
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        message = f"{faults[0].field}: {faults[0].message}{more}"
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "preflight_failed", message, faults)


def _faults(new: NewJob, settings: Settings) -> Iterator[Fault]:
    url = parse_object_url(new.manifest_url)
    yield from _tried(
        "manifest_url", lambda: _read(_open(new, settings, url.store, url.bucket), url.key)
    )
    target = new.delivery
    if target:
        key = f"{target.prefix}/{_PROBE}".lstrip("/")
        store = StoreType(target.type)
        yield from _tried(
            "delivery", lambda: _open(new, settings, store, target.bucket).probe_write(key)
        )
    callback_url = new.callback_url
    if callback_url:
        yield from _tried(
            "callback_url", lambda: Egress(settings.egress_allow).check_url(callback_url)
        )


def _tried(field: str, probe: Callable[[], object]) -> Iterator[Fault]:
    try:
        probe()
    except RefineryError as error:
        yield Fault(field, error.message, error.code)


def _open(new: NewJob, settings: Settings, store: StoreType, name: str) -> Bucket:
    target = new.delivery
    return open_bucket(
        store,
        name,
        decode_credentials(store, new.credentials),
        egress=Egress(settings.egress_allow),
        gcs_endpoint_url=settings.gcs_endpoint_url,
        kms_key_id=target.kms_key_id if target else None,
        acl=target.acl if target else None,
    )


def _read(bucket: Bucket, key: str) -> None:
    pin = _stat(bucket, key)
    if not pin.size:
        return
    text = bucket.read(key, pin, 0, min(pin.size, _FIRST_BYTES))
    if magic.codec_of(key):
        return
    whole = pin.size <= len(text)
    bad = find_no_good_line(text, whole=whole, lines_max=_FIRST_LINES)
    if bad:
        raise NoValidLines(
            "None of the manifest's first lines is usable. "
            f"Line {bad.line}: {magic.hint(bad) or bad.message}"
        )


def _stat(bucket: Bucket, key: str) -> Pin:
    try:
        return bucket.stat(key)
    except ObjectNotFound as error:
        if "*" in key:
            raise ObjectNotFound(f"{error.message} {NO_PATTERNS}") from None
        raise
