"""Bodies that are streamed out of the database."""

from collections.abc import AsyncIterator, Generator

import anyio
import anyio.to_thread
from litestar.response import Stream

NDJSON = "application/x-ndjson"


def stream(blocks: Generator[bytes, None, None]) -> Stream:
    """A response of lines; the first one is made now, so that what fails can still be told.

    Raises whatever the first block raises.
    """
    first = next(blocks, b"")
    return Stream(_body(first, blocks), media_type=NDJSON)


async def _body(first: bytes, blocks: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
    """The blocks, each made in a thread; the generator is closed however this ends.

    Litestar's own wrapper of a generator leaves it to the garbage collector when a client hangs up,
    and with it a connection to the database in the middle of a COPY.
    """
    try:
        yield first
        while (block := await anyio.to_thread.run_sync(next, blocks, None)) is not None:
            yield block
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(blocks.close)
