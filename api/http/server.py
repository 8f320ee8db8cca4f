"""The HTTP server's protocol: uvicorn's, with limits on the time and the size of a request."""

import asyncio
import json
import socket
from typing import Any

from litestar import Litestar
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.http.errors import HEAD_TOO_LARGE, INVALID_HTTP, TIMED_OUT
from api.http.requesters import note_hangup

_HEAD_BYTES_MAX = 64 * 1024
_WAITING_REQUESTS_MAX = 100
_UNSENT_BYTES_MAX = 128 * 1024
_UNWANTED_BYTES_PER_S = 1024 * 1024
_UNWANTED_BYTES_MAX = 8 * 1024 * 1024


def _last_answer(status: bytes, error: dict[str, str]) -> bytes:
    body = json.dumps(error).encode()
    return (
        b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body)
    )


_TIMED_OUT = _last_answer(b"408 Request Timeout", TIMED_OUT)
_HEAD_TOO_LARGE = _last_answer(b"431 Request Header Fields Too Large", HEAD_TOO_LARGE)
_INVALID_HTTP = _last_answer(b"400 Bad Request", INVALID_HTTP)


class _HeadTooLarge(Exception):
    """Stops the parser, which would go on to the end of the bytes that were received."""


class _TooManyWaiting(Exception):
    """Stops the parser: so many requests were sent ahead of their answers."""


class TimedProtocol(HttpToolsProtocol):
    """Closes connections whose request is not complete in time; for `uvicorn --http`.

    uvicorn has a time limit between requests only, so a client that sends half a request keeps its
    connection for ever. The limits are the application's settings: `request_head_s` from the
    connection, or from the first byte after an answer, to the end of the headers; `request_body_s`
    from there to the end of the body. A client that gets this far without a complete request is
    answered 408, if nothing was answered yet.

    A client that goes on sending a body after it was answered is read slowly, so that it finds its
    answer and costs next to nothing, and is cut off after 8 MiB.

    The line, the headers and the trailers of a request are 64 KiB at most, else it is answered 431: the
    parser has no limit, and copies what it has of a header with every piece that comes. Not more than
    100 requests may wait for the answers before them, since the parser takes each that it is given.

    A client that takes nothing of an answer for `unread_answer_s` is cut off, so that it sees an answer
    that is not complete; its work in the application ends.
    """

    _unread: asyncio.TimerHandle | None = None
    _deadline: asyncio.TimerHandle | None = None
    _unwanted_bytes = 0
    _head_bytes = 0
    _unseen_bytes = 0  # received since the parser last called one of the methods below
    _is_head = True
    _is_body = False
    _is_head_too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        settings = _application(self.app).state.settings
        self._head_s: float = settings.request_head_s
        self._body_s: float = settings.request_body_s
        self._unread_s: float = settings.unread_answer_s
        _set_unsent_max(transport)
        self._wait(self._head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all waiting, and tell the application that nobody reads its answer."""
        self._wait(None)
        self._stop_watching()
        if self._answering():
            note_hangup(self.cycle.scope)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End: the streams too, which the server would wait for as for any answer."""
        _application(self.app).state.job_feed.stop()
        super().shutdown()

    def pause_writing(self) -> None:
        """Begin to wait for the client to take some of the answer."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Stop waiting for the client, which has taken some of the answer."""
        self._stop_watching()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Take bytes: the first ones after an answer begin the next request."""
        if self._deadline is None and not self._answering():
            self._wait(self._head_s)
        self._unseen_bytes += len(data)
        super().data_received(data)
        if self._unseen_bytes > _HEAD_BYTES_MAX and not self.transport.is_closing():
            self._end_with(_HEAD_TOO_LARGE)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - a sentence of uvicorn
        """Answer bytes that are not HTTP, or a head that is too large."""
        self._end_with(_HEAD_TOO_LARGE if self._is_head_too_large else _INVALID_HTTP)

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a head."""
        self._head_bytes = self._unseen_bytes = 0
        self._is_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take some of the URL."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or drop a trailer."""
        self._count_head(len(name) + len(value))
        if self._is_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to wait for the body, which may be empty."""
        self._is_head, self._is_body = False, True
        self._unseen_bytes = 0
        if len(self.pipeline) >= _WAITING_REQUESTS_MAX:
            raise _TooManyWaiting
        self._wait(self._body_s)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take some of the body, or drop it if the request was answered already."""
        self._unseen_bytes = 0
        super().on_body(body)
        if self.cycle.response_complete:
            self._let_go(len(body))

    def on_message_complete(self) -> None:
        """Stop waiting: the request is complete."""
        self._wait(None)
        self._is_body = False
        self._unwanted_bytes = self._unseen_bytes = 0
        super().on_message_complete()

    def _count_head(self, size: int) -> None:
        self._unseen_bytes = 0
        self._head_bytes += size
        if self._head_bytes > _HEAD_BYTES_MAX:
            self._is_head_too_large = True
            raise _HeadTooLarge

    def _let_go(self, size: int) -> None:
        self._unwanted_bytes += size
        if self._unwanted_bytes > _UNWANTED_BYTES_MAX:
            self.transport.abort()
            return
        self.flow.pause_reading()
        self.loop.call_later(size / _UNWANTED_BYTES_PER_S, self._read_on)

    def _read_on(self) -> None:
        if not self.pipeline:  # otherwise uvicorn resumes after the answers before
            self.flow.resume_reading()

    def _wait(self, seconds: float | None) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self._give_up) if seconds else None

    def _watch(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self._unread_s, self._cut_off, waiting)

    def _stop_watching(self) -> None:
        if self._unread:
            self._unread.cancel()
        self._unread = None

    def _cut_off(self, waiting: int) -> None:
        if self.transport.get_write_buffer_size() < waiting:
            self._watch()
        else:
            self.transport.abort()  # close() would wait for the client to read

    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _give_up(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused and self._answering():  # the delay is ours: we do not read
            self._wait(self._body_s)
            return
        self._end_with(_TIMED_OUT)

    def _end_with(self, answer: bytes) -> None:
        """Close the connection, after this answer if no other one has begun or is due before it."""
        is_due = not self._is_body  # otherwise it was answered before the end of its body
        if self._answering():
            is_due = not self.cycle.response_started and not self.pipeline
            # The application is told that the client has gone, and its answer is dropped.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if is_due:
            self.transport.write(answer)
        self.transport.close()


def _set_unsent_max(transport: asyncio.Transport) -> None:
    """Bound the bytes that the system takes before it can send them.

    It might take minutes' worth at once, and a slow client would seem to take nothing in between.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES_MAX)


def _application(app: Any) -> Litestar:
    """Return the application, without uvicorn's wrappers."""
    while not isinstance(app, Litestar):
        app = app.app
    return app
