"""Threads of the API, by kind of work, so that no kind holds up another.

Handlers run in the event loop's default executor, which Litestar uses.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.to_thread

from api.http.places import Places

_T = TypeVar("_T")

_KEYS_MAX = 4
_KEY_S_MAX = 4.0
_HANDLER_S_MAX = 12.0
_PROBE_S_MAX = 5.0
_WORKERS_S_MAX = 60.0  # requests to Prefect, each of which has a timeout
_LOOK_S = 0.25
_PARSING_MAX = 1  # parsing holds the interpreter: two at once would only hold up the event loop
_LONG_READS_MAX = 32
_INFERENCES_MAX = 1  # each may take 700 MB, and a core for some seconds
PREFLIGHTS_MAX = 32


class Threads:
    """Places or a limiter for each kind of work; must be made where an event loop runs."""

    def __init__(self, handlers_max: int) -> None:
        self.handlers = Places("handler", handlers_max, call_s_max=_HANDLER_S_MAX)
        self.keys = Places("key", _KEYS_MAX, call_s_max=_KEY_S_MAX)
        self.writes = Places("health", 1, call_s_max=_PROBE_S_MAX)
        self.prefect = Places("prefect", 1, call_s_max=_PROBE_S_MAX)
        self.workers = Places("workers", 1, call_s_max=_WORKERS_S_MAX)
        self.metrics = Places("metrics", 1, call_s_max=_PROBE_S_MAX)
        self.looks = Places("looks", 1, call_s_max=_HANDLER_S_MAX)
        self.encoding = anyio.CapacityLimiter(1)
        self.parsing = anyio.CapacityLimiter(_PARSING_MAX)
        self.preflights = anyio.CapacityLimiter(PREFLIGHTS_MAX)
        self.long_reads = anyio.CapacityLimiter(_LONG_READS_MAX)
        self.inferences = anyio.CapacityLimiter(_INFERENCES_MAX)
        self._places = [
            self.handlers, self.keys, self.writes, self.prefect, self.workers, self.metrics, self.looks,
        ]  # fmt: skip

    @asynccontextmanager
    async def watched(self, give_up: Callable[[], None]) -> AsyncIterator[None]:
        """End calls that take too long, until the block ends; then end all that are under way.

        `give_up` is called four times a second, to do the same for work elsewhere.
        """
        asyncio.get_running_loop().set_default_executor(self.handlers)
        watching = asyncio.create_task(self._watch(give_up))
        try:
            yield
        finally:
            watching.cancel()
            for places in self._places:
                places.close()

    async def _watch(self, give_up: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for places in self._places:
                places.give_up()
            give_up()


async def run(
    limiter: anyio.CapacityLimiter, function: Callable[..., _T], *arguments: object
) -> _T:
    """Call `function` in a thread of its kind of work, and return its result."""
    return await anyio.to_thread.run_sync(function, *arguments, limiter=limiter)
