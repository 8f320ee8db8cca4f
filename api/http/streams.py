"""Long reads: bodies that are streamed from the database, and sums over a whole job."""

import threading
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from litestar import Request
from litestar.response import Stream

from api.http import encodings, requesters
from api.http.errors import too_many_requests
from api.http.requesters import GONE_S, Requester
from api.http.threads import run
from blocks.store.interrupts import Interrupt

NDJSON = "application/x-ndjson"
COMPRESSES_ITSELF = "compresses_itself"
"""The key in a route's `opt` by which the compression of other answers leaves it alone."""

_PER_CUSTOMER_MAX = 4
# The server copies what it is given, and keeps what a client has not taken yet.
_PIECE_BYTES = 256 * 1024
_RETRY_AFTER_S = 5


class LongReads:
    """Counts the long reads under way: at most four a customer, since each keeps a snapshot open."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()
        self._readers: dict[Interrupt, Requester] = {}
        self._lock = threading.Lock()

    def give_up(self) -> None:
        """End the long reads whose clients have hung up, also before anything was sent."""
        with self._lock:
            readers = list(self._readers.items())
        for interrupt, reader in readers:
            if reader.has_gone(GONE_S):
                interrupt.fire()

    @contextmanager
    def one_of(self, customer_id: str) -> Iterator[Interrupt]:
        """Count a long read until the end of the block; yield the `Interrupt` to read with.

        Raises:
            ApiError: 429, the customer has four already.
        """
        with self._lock:
            if self._under_way[customer_id] >= _PER_CUSTOMER_MAX:
                message = f"{_PER_CUSTOMER_MAX} long reads of yours are under way; end one first."
                raise too_many_requests("too_many_reads", message, _RETRY_AFTER_S)
            self._under_way[customer_id] += 1
            interrupt = Interrupt()
            self._readers[interrupt] = requesters.current()
        try:
            yield interrupt
        finally:
            with self._lock:
                del self._readers[interrupt]
                self._under_way[customer_id] -= 1
                if not self._under_way[customer_id]:
                    del self._under_way[customer_id]


async def stream(
    request: Request[Any, Any, Any],
    blocks: Generator[bytes, None, None],
    limiter: anyio.CapacityLimiter,
) -> Stream:
    """Return a response of lines, compressed as the client likes, by the threads that make the lines.

    The first block is made now, so that its errors can be answered. Raises whatever it raises.
    """
    encoding = encodings.choose(request.headers.get("accept-encoding", ""))
    headers = {"Vary": "Accept-Encoding"}
    if encoding is not None:
        blocks = encodings.compress(blocks, encoding)
        headers["Content-Encoding"] = encoding.value
    first = await run(limiter, next, blocks, b"")
    return Stream(_body(first, blocks, limiter), media_type=NDJSON, headers=headers)


async def _body(
    first: bytes, blocks: Generator[bytes, None, None], limiter: anyio.CapacityLimiter
) -> AsyncIterator[bytes]:
    """Yield the blocks, each made in a thread, and close the generator however this ends.

    Litestar's own wrapper of a generator leaves it to the garbage collector when a client hangs up,
    and with it a connection to the database in the middle of a COPY.
    """
    try:
        block: bytes | None = first
        while block is not None:
            for start in range(0, len(block), _PIECE_BYTES):
                yield block[start : start + _PIECE_BYTES]
            block = await run(limiter, next, blocks, None)
    finally:
        with anyio.CancelScope(shield=True):
            await run(limiter, blocks.close)
