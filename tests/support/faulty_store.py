"""An HTTP proxy in front of an object store that fails as stores fail, by a script."""

import contextlib
import http.client
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from deployments.embedded.ports import LOOPBACK

# So long after it was closed, a proxy has a stalled connection no more.
_STALL_S_MAX = 60.0
_UPSTREAM_TIMEOUT_S = 30.0
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
# With a linger time of zero a close is a reset.
_RESET = struct.pack("ii", 1, 0)


class Fault(Enum):
    """What the store does instead of answering."""

    INTERNAL_ERROR = "500 InternalError"
    SLOW_DOWN = "503 SlowDown"
    UNAVAILABLE = "503 without a body"
    TOO_MANY_REQUESTS = "429 TooManyRequests"
    BAD_GATEWAY = "502 with a page of HTML"
    RESET = "reset before the answer"
    STALL = "stall before the headers"

    RESET_IN_BODY = "reset in the middle of the body"
    HALF_BODY = "half a body, then a clean close"
    STALL_IN_BODY = "stall in the middle of the body"

    WHOLE_OBJECT = "200 with another body than the range"
    OTHER_RANGE = "206 that says it is another range"


BEFORE_THE_ANSWER = [
    Fault.INTERNAL_ERROR,
    Fault.SLOW_DOWN,
    Fault.UNAVAILABLE,
    Fault.TOO_MANY_REQUESTS,
    Fault.BAD_GATEWAY,
    Fault.RESET,
    Fault.STALL,
]
IN_THE_BODY = [Fault.RESET_IN_BODY, Fault.HALF_BODY, Fault.STALL_IN_BODY]
OF_THE_RANGE = [Fault.WHOLE_OBJECT, Fault.OTHER_RANGE]

_XML = "<?xml version='1.0'?><Error><Code>{0}</Code><Message>{0}</Message></Error>"
_JSON = '{{"error": {{"code": {1}, "message": "{0}", "errors": [{{"reason": "{0}"}}]}}}}'
_HTML = b"<html><body><h1>502 Bad Gateway</h1>an invalid answer from upstream</body></html>"


@dataclass(frozen=True)
class Refusal:
    """An answer with an error, in the form that S3 or GCS gives it."""

    status: int
    code: str
    retry_after_s: int | None = None


_ANSWERS = {
    Fault.INTERNAL_ERROR: Refusal(500, "InternalError"),
    Fault.SLOW_DOWN: Refusal(503, "SlowDown"),
    Fault.UNAVAILABLE: Refusal(503, ""),
    Fault.TOO_MANY_REQUESTS: Refusal(429, "TooManyRequests"),
}


@dataclass(frozen=True)
class Request:
    """One request as it came; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def is_ranged_read(self) -> bool:
        return self.method == "GET" and "range" in self.headers

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


@dataclass(frozen=True)
class Answer:
    """An answer of a store that somebody has made: `block` so many `times`, each after `pause_s`."""

    status: int
    headers: Mapping[str, str]
    block: bytes = b""
    times: int = 1
    pause_s: float = 0


Play = Fault | Refusal | Answer
Matches = Callable[[Request], bool]


def is_ranged_read(request: Request) -> bool:
    return request.is_ranged_read


def is_any(request: Request) -> bool:
    del request
    return True


class FaultyStore:
    """Passes every request on as it is, `Host` included, and plays faults where it was told to.

    `other_body` is what `Fault.WHOLE_OBJECT` sends. Use it with `with`: the end closes every
    connection, stalled ones too, and waits for all threads.
    """

    def __init__(self, upstream_url: str) -> None:
        parts = urlsplit(upstream_url)
        self._upstream = (str(parts.hostname), int(parts.port or 80))
        self._server = _Server(self)
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self.other_body = b""
        self.bytes_answered = 0
        self.requests: list[Request] = []
        self.played: list[tuple[Play, Request]] = []
        self._choose: Callable[[Request], Play | None] = lambda _: None
        self._hook: tuple[int, Callable[[], object]] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    def reset(self) -> None:
        """Forget every request, and play nothing from now on."""
        with self._lock:
            self.requests.clear()
            self.played.clear()
            self.bytes_answered = 0
            self._choose = lambda _: None
            self._hook = None

    def script(self, faults: Sequence[Play | None], matches: Matches = is_ranged_read) -> None:
        """Play one after the other for requests that match; None lets one pass, as does the end."""
        left = iter(faults)
        self._choose = lambda request: next(left, None) if matches(request) else None

    def always(self, fault: Play, matches: Matches = is_ranged_read) -> None:
        """Play it for every request that matches."""
        self._choose = lambda request: fault if matches(request) else None

    def every(self, nth: int, faults: Sequence[Fault], *, times_per_range_max: int) -> None:
        """Play the next of `faults`, round and round, for each `nth` ranged read.

        No range is refused more often than `times_per_range_max`: a bound on how often the reader
        has to try again.
        """
        rounds = itertools.cycle(faults)
        numbers = itertools.count(1)
        refused: dict[str, int] = {}

        def choose(request: Request) -> Fault | None:
            if not request.is_ranged_read or next(numbers) % nth:
                return None
            refused[request.range] = refused.get(request.range, 0) + 1
            return next(rounds) if refused[request.range] <= times_per_range_max else None

        self._choose = choose

    def slow_down(self, each_s: float, until: threading.Event) -> None:
        """Let ranged reads pass one after the other, each after `each_s` seconds, `until` that is set."""

        def choose(request: Request) -> None:
            if request.is_ranged_read:
                until.wait(each_s)

        self._choose = choose

    def before_ranged_read(self, nth: int, hook: Callable[[], object]) -> None:
        """Call `hook` once, before the `nth` ranged read from now on is passed on."""
        self._hook = (nth + self.ranged_reads, hook)

    @property
    def ranged_reads(self) -> int:
        return sum(request.is_ranged_read for request in self.requests)

    def arrive(self, request: Request) -> Play | None:
        """Take note of a request; the fault to play for it."""
        with self._lock:
            self.requests.append(request)
            fault = self._choose(request)
            if fault:
                self.played.append((fault, request))
            due = request.is_ranged_read and self._hook and self._hook[0] == self.ranged_reads
            hook = self._hook[1] if due and self._hook else None
        if hook:
            hook()
        return fault

    @contextlib.contextmanager
    def ask_upstream(
        self, request: Request, body: bytes
    ) -> Iterator[tuple[http.client.HTTPResponse, bytes]]:
        """The store's own answer."""
        connection = http.client.HTTPConnection(*self._upstream, timeout=_UPSTREAM_TIMEOUT_S)
        try:
            connection.putrequest(
                request.method, request.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers.items():
                if name not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            with connection.getresponse() as response:
                yield response, response.read()
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that the end waits for them

    def __init__(self, store: FaultyStore) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.store = store
        self._sockets: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._sockets.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self._sockets.discard(request)
        super().close_request(request)

    def hang_up(self) -> None:
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):  # it was closed already
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of our business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        # Not `self.path`, which has lost a second slash at its beginning.
        target = self.raw_requestline.decode("latin-1").split(" ")[1]
        request = Request(self.command, target, headers)
        fault = self.server.store.arrive(request)
        if fault is None:
            self._pass_on(request, body)
        else:
            self._play(fault, request, body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        del format, args

    def _pass_on(self, request: Request, body: bytes) -> None:
        with self.server.store.ask_upstream(request, body) as (response, data):
            self._send_head(response, len(data))
            self._send(data)

    def _play(self, fault: Play, request: Request, body: bytes) -> None:
        if isinstance(fault, Refusal):
            self._refuse(fault, request)
        elif isinstance(fault, Answer):
            self._make_up(fault)
        elif fault in _ANSWERS:
            self._refuse(_ANSWERS[fault], request)
        elif fault is Fault.BAD_GATEWAY:
            self._answer(502, _HTML, "text/html")
        elif fault is Fault.RESET:
            self._reset()
        elif fault is Fault.STALL:
            self._stall()
        elif fault in IN_THE_BODY:
            self._break_off(fault, request, body)
        elif fault is Fault.WHOLE_OBJECT:
            data = self.server.store.other_body
            self._answer(200, data, "application/octet-stream")
        elif fault is Fault.OTHER_RANGE:
            self._shift(request, body)

    def _refuse(self, refusal: Refusal, request: Request) -> None:
        is_gcs = "/storage/v1/" in request.target
        text = (_JSON if is_gcs else _XML).format(refusal.code, refusal.status)
        kind = "application/json" if is_gcs else "application/xml"
        after = refusal.retry_after_s
        more = {} if after is None else {"Retry-After": str(after)}
        self._answer(refusal.status, text.encode() if refusal.code else b"", kind, more)

    def _make_up(self, answer: Answer) -> None:
        store = self.server.store
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.block) * answer.times))
        self.end_headers()
        if self.command == "HEAD":
            return
        for _ in range(answer.times):
            if store.closing.wait(answer.pause_s):
                return
            self.wfile.write(answer.block)
            store.bytes_answered += len(answer.block)

    def _break_off(self, fault: Fault, request: Request, body: bytes) -> None:
        with self.server.store.ask_upstream(request, body) as (response, data):
            self._send_head(response, len(data))
            self._send(data[: len(data) // 2])
        if fault is Fault.RESET_IN_BODY:
            self._reset()
        elif fault is Fault.STALL_IN_BODY:
            self._stall()
        self.close_connection = True

    def _shift(self, request: Request, body: bytes) -> None:
        """The answer to the range, said to be that of the bytes right behind it."""
        with self.server.store.ask_upstream(request, body) as (response, data):
            first = int(request.range.removeprefix("bytes=").partition("-")[0]) + len(data)
            other = f"bytes {first}-{first + len(data) - 1}/{first + len(data)}"
            self._send_head(response, len(data), {"content-range": other})
            self._send(data)

    def _answer(
        self, status: int, data: bytes, kind: str, more: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self._send(data)

    def _send_head(
        self, response: http.client.HTTPResponse, size: int, changes: dict[str, str] | None = None
    ) -> None:
        changes = changes or {}
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                self.send_header(name, changes.get(name.lower(), value))
        length = response.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(size))
        self.end_headers()

    def _send(self, data: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.rfile.close()
        self.connection.close()

    def _stall(self) -> None:
        self.close_connection = True
        self.server.store.closing.wait(_STALL_S_MAX)
