"""Clients that hang up before they are answered."""

from typing import Any

import anyio
from litestar import Request
from litestar.types import HTTPReceiveMessage, Receive, WebSocketReceiveMessage

from blocks.domain.errors import RefineryError

# Written here, since an annotation of the inner function would be put together for each request.
_Received = HTTPReceiveMessage | WebSocketReceiveMessage


class ClientGone(RefineryError):
    """The client has closed the connection, so there is nobody to answer."""

    code = "client_closed_request"


def raise_on_hangup(receive: Receive) -> Receive:
    """Wrap `receive` so that it raises `ClientGone` once the client has gone."""

    async def receive_or_raise() -> _Received:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("The client has closed the connection.")
        return message

    return receive_or_raise


async def pause(request: Request[Any, Any, Any], seconds: float) -> None:
    """Wait for `seconds`; for a request without a body, or whose body was read.

    Raises:
        ClientGone: the client hung up meanwhile.
    """
    with anyio.move_on_after(seconds):
        while True:
            await request.receive()
