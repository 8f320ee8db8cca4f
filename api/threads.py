"""Threads of the API, apart by what they are for: none of them can be held up by another's work.

The handlers themselves have a pool of their own, the event loop's default one, which Litestar uses.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import anyio
import anyio.to_thread

_T = TypeVar("_T")

_LOOKUPS_MAX = 4
_PARSING_MAX = 1  # it holds the interpreter: two at once would only hold up the event loop
_LONG_READS_MAX = 32
PREFLIGHTS_MAX = 32


class Threads:
    """One limiter for each kind of work; made where an event loop runs."""

    def __init__(self, handlers_max: int) -> None:
        # As many as there are connections to the database; asyncio's own pool has six on two cores.
        self._handlers = ThreadPoolExecutor(handlers_max, thread_name_prefix="handler")
        asyncio.get_running_loop().set_default_executor(self._handlers)
        self.keys = anyio.CapacityLimiter(_LOOKUPS_MAX)
        self.health = anyio.CapacityLimiter(_LOOKUPS_MAX)
        self.metrics = anyio.CapacityLimiter(1)
        self.parsing = anyio.CapacityLimiter(_PARSING_MAX)
        self.preflights = anyio.CapacityLimiter(PREFLIGHTS_MAX)
        self.long_reads = anyio.CapacityLimiter(_LONG_READS_MAX)

    def stop(self) -> None:
        """Take no more work; what is under way ends by its own time limits."""
        self._handlers.shutdown(wait=False)


async def run(
    limiter: anyio.CapacityLimiter, function: Callable[..., _T], *arguments: object
) -> _T:
    """What `function` returns, called in a thread of its kind of work."""
    return await anyio.to_thread.run_sync(function, *arguments, limiter=limiter)
