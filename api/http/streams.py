"""Long reads: bodies that are streamed from the database, and sums over a whole job."""

import threading
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager

import anyio
from litestar.response import Stream

from api.http import requesters
from api.http.errors import too_many_requests
from api.http.requesters import GONE_S, Requester
from api.http.threads import run
from blocks.store.interrupts import Interrupt

NDJSON = "application/x-ndjson"
_PER_CUSTOMER_MAX = 4
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


async def stream(blocks: Generator[bytes, None, None], limiter: anyio.CapacityLimiter) -> Stream:
    """Return a response of lines. The first block is made now, so that its errors can be answered.

    Raises whatever the first block raises.
    """
    first = await run(limiter, next, blocks, b"")
    return Stream(_body(first, blocks, limiter), media_type=NDJSON)


async def _body(
    first: bytes, blocks: Generator[bytes, None, None], limiter: anyio.CapacityLimiter
) -> AsyncIterator[bytes]:
    """Yield the blocks, each made in a thread, and close the generator however this ends.

    Litestar's own wrapper of a generator leaves it to the garbage collector when a client hangs up,
    and with it a connection to the database in the middle of a COPY.
    """
    try:
        yield first
        while (block := await run(limiter, next, blocks, None)) is not None:
            yield block
    finally:
        with anyio.CancelScope(shield=True):
            await run(limiter, blocks.close)
