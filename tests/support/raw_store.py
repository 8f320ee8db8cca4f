"""A store that answers every request with the same bytes, whatever they are."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from deployments.embedded.ports import LOOPBACK

_TIMES_MAX = 10_000


class RawStore:
    """Listens on 127.0.0.1; `endless` sends the bytes again and again, until the client hangs up."""

    def __init__(self, answer: bytes, *, endless: bool = False) -> None:
        self._answer = answer
        self._times = _TIMES_MAX if endless else 1
        self._server = socket.create_server((LOOPBACK, 0))
        self.url = f"http://{LOOPBACK}:{self._server.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                thread = threading.Thread(target=self._answer_all, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _answer_all(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for _ in range(self._times):
                connection.sendall(self._answer)
