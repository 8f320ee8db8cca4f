"""Try the manifest, the delivery and the callback of a job before it is accepted."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from http import HTTPStatus

import anyio
import anyio.to_thread

from api.http.errors import too_many_requests, with_faults
from api.http.threads import PREFLIGHTS_MAX
from blocks.bodies.fields import Fault
from blocks.buckets.opening import open_bucket
from blocks.buckets.protocol import Bucket
from blocks.domain.errors import NoValidLines, RefineryError
from blocks.domain.model import BadLine, GoodLine, Pin
from blocks.domain.object_urls import StoreType, parse_object_url
from blocks.lines import magic
from blocks.lines.compressed_start import Start, decompress_start
from blocks.lines.exact_path import find_bad_start, judge_start
from blocks.secrets.credentials import decode_credentials
from blocks.secrets.egress import Egress
from blocks.settings import Settings
from blocks.store.jobs import NewJob

Lines = Sequence[GoodLine | BadLine]
Probe = Callable[[], Lines | None]

_SECONDS_MAX = 10.0
_PER_CUSTOMER_MAX = 2
_RETRY_AFTER_S = 10
_PROBE = "refinery-preflight"
_FIRST_BYTES = 64 * 1024
# A block of zstd may have 128 KiB, and is decompressed as a whole.
_FIRST_COMPRESSED_BYTES = 256 * 1024
_FIRST_LINES = 10


class Preflights:
    """Tries jobs out in threads of their own, for at most `seconds` each.

    A probe that is stuck cannot be ended from outside. It ends by the time limits of the store's
    operations, and counts as one of its customer's two until then.
    """

    def __init__(self, settings: Settings, seconds: float = _SECONDS_MAX) -> None:
        self._settings = settings
        self._seconds = seconds
        self._under_way: Counter[str] = Counter()
        self._lock = threading.Lock()

    async def check(self, new: NewJob, limiter: anyio.CapacityLimiter) -> Lines:
        """Read from the manifest, begin an upload to the delivery's place, resolve the callback's host.

        Return the first lines of the manifest.

        Raises:
            ApiError: 422, with a code for each that does not work; 429, too many are under way.
        """
        trial = _Trial(dict(_probes(new, self._settings)), partial(self._leave, new.customer_id))
        self._enter(new.customer_id)
        try:
            with anyio.move_on_after(self._seconds):
                await anyio.to_thread.run_sync(trial.run, limiter=limiter, abandon_on_cancel=True)
        finally:
            trial.give_up()
        faults = trial.faults(self._seconds)
        if faults:
            raise with_faults(HTTPStatus.UNPROCESSABLE_ENTITY, "preflight_failed", faults)
        return trial.lines

    def _enter(self, customer_id: str) -> None:
        with self._lock:
            if self._under_way[customer_id] >= _PER_CUSTOMER_MAX:
                message = f"{_PER_CUSTOMER_MAX} preflights of yours are under way; try again later."
                raise too_many_requests("too_many_preflights", message, _RETRY_AFTER_S)
            if self._under_way.total() >= PREFLIGHTS_MAX:
                message = "Many preflights are under way; try again later."
                raise too_many_requests("too_many_preflights", message, _RETRY_AFTER_S)
            self._under_way[customer_id] += 1

    def _leave(self, customer_id: str) -> None:
        with self._lock:
            self._under_way[customer_id] -= 1
            if not self._under_way[customer_id]:
                del self._under_way[customer_id]


class _Trial:
    """The probes of one job, one after the other, in one thread."""

    def __init__(self, probes: Mapping[str, Probe], leave: Callable[[], None]) -> None:
        self._probes = probes
        self._leave = leave
        self._answers: dict[str, Fault | None] = {}
        self.lines: Lines = ()
        self._lock = threading.Lock()
        self._has_begun = self._is_given_up = False

    def run(self) -> None:
        """Run the probes one after the other, until all have answered or the request has given up."""
        with self._lock:
            if self._is_given_up:
                return
            self._has_begun = True
        try:
            for field, probe in self._probes.items():
                if not self._is_given_up:
                    self._answers[field] = self._try(field, probe)
        finally:
            self._leave()

    def _try(self, field: str, probe: Probe) -> Fault | None:
        try:
            self.lines = probe() or self.lines
        except RefineryError as error:
            return Fault(field, error.message, error.code)
        return None

    def give_up(self) -> None:
        """Begin no further probe; count the trial as over if not even the first one has begun."""
        with self._lock:
            self._is_given_up = True
            if not self._has_begun:
                self._leave()

    def faults(self, seconds: float) -> list[Fault]:
        """Return a fault for each probe that failed or did not answer in time."""
        late = f"This was not answered within {seconds:g} s."
        answers = dict(self._answers)
        found = (
            answers.get(field, Fault(field, late, "preflight_timeout")) for field in self._probes
        )
        return [fault for fault in found if fault]


def _probes(new: NewJob, settings: Settings) -> Iterator[tuple[str, Probe]]:
    url = parse_object_url(new.manifest_url)
    yield (
        "manifest_url",
        lambda: _read(_open(new, settings, url.store, url.bucket), url.key, new),
    )
    target = new.delivery
    if target:
        key = f"{target.prefix}/{_PROBE}".lstrip("/")
        store = target.type
        yield "delivery", lambda: _write(_open(new, settings, store, target.bucket), key)
    callback_url = new.callback_url
    if callback_url:
        yield "callback_url", lambda: _resolve(settings, callback_url)


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
        request_s=_SECONDS_MAX,
    )


def _resolve(settings: Settings, callback_url: str) -> None:
    Egress(settings.egress_allow).check_url(callback_url)


def _write(bucket: Bucket, key: str) -> None:
    bucket.probe_write(key)


def _read(bucket: Bucket, key: str, new: NewJob) -> Lines:
    pin = bucket.stat(key)
    if not pin.size:
        return []
    start = _read_start(bucket, key, pin)
    lines = judge_start(
        start.text,
        whole=start.is_whole,
        lines_max=_FIRST_LINES,
        takes_text=new.task_type.takes_text,
        options=new.options,
    )
    bad = find_bad_start(lines)
    if bad:
        raise NoValidLines(
            "None of the manifest's first lines is usable. "
            f"Line {bad.line}: {magic.hint(bad) or bad.message}"
        )
    return lines


def _read_start(bucket: Bucket, key: str, pin: Pin) -> Start:
    codec = magic.codec_of(key)
    size = min(pin.size, _FIRST_COMPRESSED_BYTES if codec else _FIRST_BYTES)
    content = bucket.read(key, pin, 0, size)
    has_more = pin.size > len(content)
    if codec is None:
        return Start(content, is_whole=not has_more)
    return decompress_start(content, codec, has_more=has_more, bytes_max=_FIRST_BYTES)
