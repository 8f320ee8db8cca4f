"""The state of PostgreSQL and Prefect for health and metrics, which never wait for it for long."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from prometheus_client.core import Metric

from api.http.places import Places
from api.http.threads import Threads
from api.kept_metrics import read_kept, tell_up, tell_workers
from blocks import logs
from blocks.prefect.api import PrefectApi, PrefectUnavailable
from blocks.store import write_checks
from blocks.store.database import Database, DatabaseUnavailable

logger = logs.get_logger("refinery.probes")

_T = TypeVar("_T")

# Requests within this time reuse the last finding, failed ones included.
_KEPT_S = 1.0
_WAIT_S = 0.8
# On a busy machine a look may take longer than a caller waits, and its finding is used all the same. One
# older than this means that the looks hang.
_FRESH_S = 5.0
# Prefect finds out after half a minute or more that a worker is gone: there is no use in asking often.
_WORKERS_KEPT_S = 10.0
_WORKERS_FRESH_S = 60.0
_POOLS_MAX = 20  # each is a request


class Probe(Generic[_T]):
    """Looks at something that may hang: one look at a time, in a place of its own.

    A finding is used for `kept_s` seconds, by default one, and for `fresh_s`, by default five, while the
    next look is under way.
    """

    def __init__(
        self,
        places: Places,
        look: Callable[[], _T],
        *,
        kept_s: float | None = None,
        fresh_s: float | None = None,
    ) -> None:
        self._places = places
        self._look = look
        self._kept_s = kept_s
        self._fresh_s = fresh_s
        self._looking: asyncio.Future[None] | None = None
        self._found: tuple[float, _T] | None = None

    async def latest(self) -> _T | None:
        """Return the latest finding; None where no look has ended for `fresh_s` seconds.

        Waits for a look for less than a second.
        """
        found = self._since(_KEPT_S if self._kept_s is None else self._kept_s)
        if found is None:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.ensure_future(self._look_once())
            await asyncio.wait([self._looking], timeout=_WAIT_S)
            found = self._since(_FRESH_S if self._fresh_s is None else self._fresh_s)
        return found

    def _since(self, seconds: float) -> _T | None:
        if self._found is None or self._found[0] + seconds < time.monotonic():
            return None
        return self._found[1]

    async def _look_once(self) -> None:
        try:
            found = await self._places.run(self._look)
            self._found = time.monotonic(), found
        except Exception:
            self._found = None
            logger.exception("probe.failed")


class Probes:
    """The probes of one process."""

    def __init__(self, threads: Threads, database: Database, prefect: PrefectApi) -> None:
        self._database = Probe(threads.writes, lambda: _database_status(database))
        self._prefect = Probe(threads.prefect, prefect.is_reachable)
        self._kept = Probe(threads.metrics, lambda: _kept(database))
        self._workers = Probe(
            threads.workers,
            lambda: _workers(prefect),
            kept_s=_WORKERS_KEPT_S,
            fresh_s=_WORKERS_FRESH_S,
        )

    async def health(self) -> tuple[str, str]:
        """Return the status of the database and of Prefect: `ok`, or what is wrong."""
        database, prefect = await asyncio.gather(self._database.latest(), self._prefect.latest())
        return database or DatabaseUnavailable.status, "ok" if prefect else "unreachable"

    async def outside(self) -> Sequence[Metric]:
        """Return whether the database and Prefect answer, and the figures of those that do."""
        kept, prefect, workers = await asyncio.gather(
            self._kept.latest(), self._prefect.latest(), self._workers.latest()
        )
        told = [*tell_up(kept or None, bool(prefect)), *(kept or ())]
        return [*told, tell_workers(workers)] if prefect and workers is not None else told


def _database_status(database: Database) -> str:
    try:
        with database.transaction() as tx:
            write_checks.write(tx)
    except DatabaseUnavailable as error:
        return error.status
    return "ok"


def _kept(database: Database) -> Sequence[Metric]:
    try:
        return read_kept(database)
    except DatabaseUnavailable:
        return ()


def _workers(prefect: PrefectApi) -> Mapping[str, int] | None:
    try:
        return prefect.workers_online(pools_max=_POOLS_MAX)
    except PrefectUnavailable:
        return None
