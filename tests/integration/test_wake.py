"""A worker hears of a run when it is launched, and looks for runs as ever where it hears nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from prefect.workers.base import BaseWorker

from blocks.store import runs
from deployments import wake
from deployments.wake import Waker
from deployments.worker import ForkWorker
from tests.support.client import wait_for
from tests.support.servers import KEY
from tests.support.store_shop import Shop, take

pytestmark = pytest.mark.integration

WAIT_S = 20.0


@pytest.fixture
def as_worker(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFINERY_DATABASE_URL", database_url)
    monkeypatch.setenv("ASG_ENCRYPTION_KEY", KEY)
    monkeypatch.setattr(wake, "_RECONNECT_S", 0.05)


def listen(look: Callable[[Waker], Awaitable[None]]) -> None:
    """Call `look` with a waker that listens."""

    async def main() -> None:
        waker = Waker()
        waker.start()
        try:
            await asyncio.wait_for(waker.wait(), WAIT_S)  # it wakes the worker once it listens
            assert waker.is_listening
            await look(waker)
        finally:
            waker.stop()

    asyncio.run(main())


def launch(shop: Shop) -> None:
    launched = take(shop)
    assert launched is not None
    with shop.database.transaction() as tx:
        runs.record_launch(tx, launched, str(uuid4()))


@pytest.mark.usefixtures("as_worker")
def test_a_worker_is_woken_by_each_launch(shop: Shop) -> None:
    shop.submit()
    shop.submit()

    async def look(waker: Waker) -> None:
        for _ in range(2):
            waiting = asyncio.create_task(waker.wait())
            await asyncio.to_thread(launch, shop)
            await asyncio.wait_for(waiting, WAIT_S)

    listen(look)


@pytest.mark.usefixtures("as_worker")
def test_a_worker_that_has_lost_the_database_listens_again_and_is_woken(
    database_url: str,
) -> None:
    async def look(waker: Waker) -> None:
        with psycopg.connect(database_url, autocommit=True) as other:
            ended = other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and query like 'listen%'"
            ).fetchall()
        assert ended == [(True,)]
        # What was launched meanwhile is looked for.
        await asyncio.wait_for(waker.wait(), WAIT_S)
        assert waker.is_listening

    listen(look)


def test_a_worker_without_a_database_of_its_own_is_not_woken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REFINERY_DATABASE_URL", raising=False)

    async def main() -> None:
        waker = Waker()
        waker.start()
        assert waker._thread is not None
        await asyncio.to_thread(waker._thread.join, WAIT_S)
        assert (waker._thread.is_alive(), waker.is_listening) == (False, False)

    asyncio.run(main())


@pytest.mark.parametrize("is_listening, looks", [(True, 1), (False, 3)])
def test_a_worker_that_is_woken_looks_less_often_by_itself(
    is_listening: bool, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    async def note(worker: object) -> list[Any]:
        asked.append(worker)
        return []

    monkeypatch.setattr(BaseWorker, "get_and_submit_flow_runs", note)

    async def main() -> None:
        worker = ForkWorker(work_pool_name="any")
        worker.is_setup = True
        worker._waker.is_listening = is_listening
        for _ in range(3):
            await worker.get_and_submit_flow_runs()
        assert len(asked) == looks

    asyncio.run(main())


def test_a_worker_that_is_woken_looks_at_once_and_goes_on_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []

    async def fail_once(worker: object) -> list[Any]:
        asked.append(worker)
        if len(asked) == 1:
            raise ConnectionError("not now")
        return []

    monkeypatch.setattr(BaseWorker, "get_and_submit_flow_runs", fail_once)

    def has_asked(times: int) -> bool:
        return len(asked) == times

    async def serve(worker: ForkWorker, **_: Any) -> None:
        worker.is_setup = True
        for n in (1, 2):
            worker._waker._woken.set()
            await asyncio.to_thread(wait_for, "a look", partial(has_asked, n))

    monkeypatch.setattr(BaseWorker, "start", serve)
    monkeypatch.delenv("REFINERY_DATABASE_URL", raising=False)

    async def main() -> None:
        await ForkWorker(work_pool_name="any").start()

    asyncio.run(main())
    assert len(asked) == 2
