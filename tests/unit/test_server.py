"""Connections whose request does not come to its end are closed, by the real server."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import uvicorn
from litestar import Litestar, Request, get, post
from litestar.datastructures import State
from litestar.exceptions import ClientException

from api.__main__ import ARGUMENTS
from api.http import server
from api.http.server import TimedProtocol
from deployments.embedded.ports import free_port

HEAD_S, BODY_S = 0.5, 1.0
ENOUGH_S = 10.0
HALF_HEADS = [
    b"",
    b"G",
    b"GET /length HTTP/1.1\r\n",
    b"GET /length HTTP/1.1\r\nHost: x\r\nA: b\r\n",
    b"\r\n",
]
BODY = b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n"
CHUNKED = b"POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
HALF_BODIES = [BODY, BODY + b"abc", CHUNKED, CHUNKED + b"3\r\nabc\r\n"]
WHOLE = b"GET /length HTTP/1.1\r\nHost: x\r\n\r\n"


@get("/length")
async def nothing() -> int:
    return 0


@post("/length", status_code=200)
async def length(request: Request[object, object, State]) -> int:
    return len(await request.body())


@post("/headers", status_code=200)
async def headers(request: Request[object, object, State]) -> list[str]:
    await request.body()
    return list(request.headers)


@post("/refused")
async def refused() -> None:
    raise ClientException


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server with the protocol, and an application that tells the length of a body."""
    limits = SimpleNamespace(request_head_s=HEAD_S, request_body_s=BODY_S, unread_answer_s=HEAD_S)
    state = State({"settings": limits, "job_feed": SimpleNamespace(stop=lambda: None)})
    app = Litestar([nothing, length, headers, refused], state=state)
    found = free_port()
    running = uvicorn.Server(
        uvicorn.Config(app, "127.0.0.1", found, http=TimedProtocol, log_level="critical")
    )
    thread = threading.Thread(target=running.run)
    thread.start()
    deadline = time.monotonic() + ENOUGH_S
    while not running.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield found
    running.should_exit = True
    thread.join()


async def answer_to(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """All that comes until the server closes the connection, which is never closed from here."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""

    async def read() -> None:
        nonlocal answer
        # A reset comes where the server closes before it has read what was sent; what came before counts.
        with contextlib.suppress(ConnectionResetError):
            while some := await reader.read(64 * 1024):
                answer += some

    reading = asyncio.ensure_future(read())
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
    try:
        await asyncio.wait_for(reading, ENOUGH_S)
        return answer
    finally:
        writer.close()


@pytest.mark.parametrize("half", [*HALF_HEADS, *HALF_BODIES])
def test_half_a_request_is_answered_408_and_closed(port: int, half: bytes) -> None:
    answer = asyncio.run(answer_to(port, half))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'"code": "request_timeout"}')
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("half", [WHOLE[:20], BODY + b"abc"])
def test_half_a_request_after_a_whole_one_is_closed_too(port: int, half: bytes) -> None:
    answer = asyncio.run(answer_to(port, WHOLE, half, pause_s=0.1))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 408 ") == 1


def test_a_client_that_sends_a_byte_now_and_then_gains_no_time(port: int) -> None:
    head = [bytes([each]) for each in WHOLE.replace(b"Host", b"A" * 100)]
    assert b" 408 " in asyncio.run(answer_to(port, *head, pause_s=0.02))
    body = [BODY.replace(b"6", b"100"), *([b"x"] * 100)]
    assert b" 408 " in asyncio.run(answer_to(port, *body, pause_s=0.02))


def test_800_half_sent_requests_are_all_closed(port: int) -> None:
    async def send_all() -> list[bytes]:
        return await asyncio.gather(*(answer_to(port, WHOLE[:20]) for _ in range(800)))

    assert len(asyncio.run(send_all())) == 800  # else one of them would be open after `ENOUGH_S`


def test_a_slow_upload_within_the_time_is_taken(port: int) -> None:
    """The whole of it takes longer than the headers may."""
    head = BODY.replace(b"Host: x", b"Connection: close")
    pieces = [head[:9], head[9:], *(b"abcdef"[n : n + 1] for n in range(6))]
    answer = asyncio.run(answer_to(port, *pieces, pause_s=0.08))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"6")


def test_a_body_that_nobody_reads_is_no_reason_to_keep_the_connection(port: int) -> None:
    answer = asyncio.run(answer_to(port, BODY.replace(b"/length", b"/refused") + b"abc"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


HEADER = b"A: %b\r\n" % (b"y" * 1024)
LAST_CHUNK = CHUNKED + b"0\r\nA: "
WITHOUT_END = {
    "white space": (b"", b"\r\n" * 512),
    "method": (b"GET", b"T" * 1024),
    "URL": (b"GET /length?a=", b"y" * 1024),
    "header name": (WHOLE[:-2], b"y" * 1024),
    "header": (WHOLE[:-2] + b"A: ", b"y" * 1024),
    "headers": (WHOLE[:-2], HEADER),
    "trailer": (LAST_CHUNK, b"y" * 1024),
    "trailers": (CHUNKED + b"0\r\n", HEADER),
    "size of a chunk": (CHUNKED, b"0" * 1024),
    "extension of a chunk": (CHUNKED + b"5;a=", b"y" * 1024),
    "requests": (b"", WHOLE * 30),
}


@pytest.mark.parametrize("size", [1, 512], ids=["small pieces", "large pieces"])
@pytest.mark.parametrize("kind", WITHOUT_END)
def test_what_has_no_end_is_cut_off_before_it_costs_anything(
    port: int, kind: str, size: int
) -> None:
    begin, more = WITHOUT_END[kind]
    sent = 0

    async def pour() -> bytes:
        nonlocal sent
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        reading = asyncio.ensure_future(reader.read())
        with contextlib.suppress(ConnectionError):
            writer.write(begin)
            while True:
                writer.write(more * size)
                await writer.drain()
                sent += len(more) * size
                await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(reading, ENOUGH_S)
        return b""

    answer = asyncio.run(asyncio.wait_for(pour(), ENOUGH_S))
    assert sent < 32 * 1024**2  # the limit, and what the system's buffers take
    refused = answer[answer.rfind(b"HTTP/1.1") :] if answer.count(b"HTTP/1.1") == 1 else b""
    if refused:  # else the connection was reset before it could be read, or other answers were due
        assert refused.split()[1] in (b"400", b"431")


@pytest.mark.parametrize("kind", ["URL", "header", "headers"])
def test_a_head_is_refused_with_what_is_allowed_and_taken_up_to_that(port: int, kind: str) -> None:
    begin, more = WITHOUT_END[kind]
    end = b"" if kind == "headers" else b" HTTP/1.1\r\n" if kind == "URL" else b"\r\n"
    end += b"Host: x\r\nConnection: close\r\n\r\n"
    taken = asyncio.run(answer_to(port, begin + more * 60 + end))
    assert taken.startswith(b"HTTP/1.1 200 ")
    refused = asyncio.run(answer_to(port, begin + more * 70 + end))
    assert refused.startswith(b"HTTP/1.1 431 ")
    assert b'"code": "headers_too_large"' in refused


def test_a_hundred_requests_may_be_sent_ahead(port: int) -> None:
    last = WHOLE.replace(b"Host: x", b"Connection: close")
    assert asyncio.run(answer_to(port, WHOLE * 99 + last)).count(b"HTTP/1.1 200 ") == 100


def test_a_trailer_is_no_header(port: int) -> None:
    """Else a proxy that strips a header could be got round by a trailer."""
    body = CHUNKED.replace(b"/length", b"/headers") + b"3\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n"
    last = WHOLE.replace(b"Host: x", b"Connection: close")
    answer = asyncio.run(answer_to(port, body, last))
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert b"x-trailer" not in answer


def upload(path: bytes, size: int) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path, size)
    return head + b"x" * size


def test_a_body_behind_its_answer_is_read_slowly(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the connection serves the next request, once the body has come to its end."""
    monkeypatch.setattr(server, "_UNWANTED_BYTES_PER_S", 4 * 1024**2)
    pauses: list[float] = []
    read_on = TimedProtocol._read_on

    def noted(protocol: TimedProtocol) -> None:
        pauses.append(time.monotonic())
        read_on(protocol)

    monkeypatch.setattr(TimedProtocol, "_read_on", noted)
    last = WHOLE.replace(b"Host: x", b"Connection: close")
    answer = asyncio.run(answer_to(port, upload(b"/refused", 2 * 1024**2), last))
    assert [answer.count(b" 400 "), answer.count(b" 200 ")] == [1, 1]
    assert len(pauses) >= 4  # by turns, and not as fast as it comes


def test_a_body_without_end_behind_its_answer_is_cut_off(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_UNWANTED_BYTES_PER_S", 1024**3)
    sent = 0

    async def pour() -> None:
        nonlocal sent
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(upload(b"/refused", 0).replace(b"Length: 0", b"Length: %d" % 1024**4))
        while True:
            writer.write(b"x" * 1024**2)
            await writer.drain()
            sent += 1024**2

    with pytest.raises(ConnectionError):
        asyncio.run(asyncio.wait_for(pour(), ENOUGH_S))
    assert sent < 32 * 1024**2  # the limit, and what the system's buffers take


def test_requests_on_one_connection_have_the_time_each(port: int) -> None:
    last = WHOLE.replace(b"Host: x", b"Connection: close")
    answer = asyncio.run(answer_to(port, *([WHOLE] * 6), last, pause_s=HEAD_S / 4))
    assert answer.count(b"HTTP/1.1 200 ") == 7
    assert b" 408 " not in answer


def test_the_api_is_started_with_the_protocol() -> None:
    assert ARGUMENTS[-1] == f"{TimedProtocol.__module__}:{TimedProtocol.__name__}"
