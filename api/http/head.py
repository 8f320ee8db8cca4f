"""Answer `HEAD` wherever there is `GET` (RFC 9110, 9.3.2)."""

from typing import Any

import anyio
from litestar import Litestar
from litestar.enums import HttpMethod, ScopeType
from litestar.types import HTTPDisconnectEvent, Message


class AppWithHead(Litestar):
    """Answers `HEAD` as it answers `GET`, without the body, of which no more than a block is made."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a connection."""
        if scope["type"] != ScopeType.HTTP or scope["method"] != HttpMethod.HEAD:
            await super().__call__(scope, receive, send)
            return
        answered = anyio.Event()

        async def send_head(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
            elif not answered.is_set():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                answered.set()

        async def receive_end() -> HTTPDisconnectEvent:
            # A streamed body ends as if the client had gone, as soon as the head is sent.
            await answered.wait()
            return {"type": "http.disconnect"}

        # The server keeps its own scope, by which it knows to send no body.
        asked = scope.copy()
        asked["method"] = HttpMethod.GET
        await super().__call__(asked, receive_end, send_head)
