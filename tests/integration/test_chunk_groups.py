"""A group of chunks is one task run, in which each chunk is tried, retried and committed by itself."""

from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.states import Suspended
from tenacity import wait_fixed

from blocks.domain.errors import StoreUnavailable, Transient
from blocks.domain.model import JobStatus
from flows.process_job import process_job
from flows.reading import ingestion
from flows.reading.groups import cut_groups
from flows.running.monitor import ChunkSeen
from flows.running.policy import RETRY
from flows.running.resources import settings
from tests.support.flow_world import FlowShop, check_created, run
from tests.support.manifests import make_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

MANIFEST = make_manifest(6000, bad_share=0.05)
CHUNKS = -(-len(MANIFEST.data) // 20_000)
Create = Callable[..., Any]


@pytest.fixture
def shop(flow_shop: FlowShop, monkeypatch: pytest.MonkeyPatch) -> FlowShop:
    monkeypatch.setattr(RETRY, "wait", wait_fixed(0.01))
    flow_shop.put(MANIFEST.data)
    return flow_shop


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[list[ChunkSeen]]:
    """The chunks that each run shows, in their order."""
    shown: list[list[ChunkSeen]] = []

    def show(_: str, seen: list[ChunkSeen]) -> None:
        shown.append(sorted(seen, key=lambda each: each.chunk))

    monkeypatch.setattr("flows.process_job.show_chunks", show)
    return shown


def replace(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]) -> None:
    """Have `before` called with the number of each chunk that is about to be made."""
    create: Create = ingestion.create_tasks

    def created(job_id: str, chunk_no: int, *rest: Any) -> Any:
        before(chunk_no)
        return create(job_id, chunk_no, *rest)

    monkeypatch.setattr(ingestion, "create_tasks", created)


def missing(job_id: str) -> list[int]:
    return [chunk_no for chunk_no, _, _ in ingestion.missing_ranges(job_id)]


def task_names(state: State[Any]) -> list[str]:
    assert isinstance(state.state_details.flow_run_id, UUID)
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return [each.name for each in client.read_task_runs(flow_run_filter=of_run)]


def test_many_chunks_are_few_task_runs_and_each_is_shown(
    shop: FlowShop, tables: list[list[ChunkSeen]]
) -> None:
    job_id = shop.submit()
    state = run(process_job, job_id)
    assert state.is_completed()
    check_created(shop, job_id, MANIFEST)
    ((*seen,),) = tables
    assert [each.chunk for each in seen] == list(range(CHUNKS))
    assert sum(each.lines or 0 for each in seen) == 6000
    assert CHUNKS > 3 * 5
    assert len(task_names(state)) < 12


def test_a_chunk_that_fails_leaves_the_others_of_its_group_to_be_tried(
    shop: FlowShop, tables: list[list[ChunkSeen]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def fail(chunk_no: int) -> None:
        tries.append(chunk_no)
        if chunk_no == 3:
            raise Transient("The store answered SlowDown.")

    job_id = shop.submit()
    with monkeypatch.context() as patch:
        replace(patch, fail)
        assert run(process_job, job_id).is_failed()
    assert missing(job_id) == [3]
    assert tries.count(3) == 6
    assert [each.chunk for each in tables[0]] == [n for n in range(CHUNKS) if n != 3]

    made: list[int] = []
    replace(monkeypatch, made.append)
    assert run(process_job, job_id).is_completed()
    assert made == [3]
    check_created(shop, job_id, MANIFEST)


def test_a_store_that_fails_for_long_is_not_waited_for_again_at_each_chunk(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def fail(chunk_no: int) -> None:
        if chunk_no:
            tries.append(chunk_no)
            raise Transient("The store answered SlowDown.")

    job_id = shop.submit()
    replace(monkeypatch, fail)
    assert run(process_job, job_id).is_failed()
    counts = sorted(Counter(tries).values())
    groups = len(cut_groups([(0, 0, 0)] * (CHUNKS - 1), settings().chunks_in_flight))
    assert counts == [1] * (CHUNKS - 1 - groups) + [6] * groups


def test_a_chunk_is_tried_again_by_itself_and_says_how_often(
    shop: FlowShop, tables: list[list[ChunkSeen]], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {2: 2, 5: 1}

    def fail(chunk_no: int) -> None:
        if left.get(chunk_no, 0):
            left[chunk_no] -= 1
            raise Transient("The store answered SlowDown.")

    job_id = shop.submit()
    replace(monkeypatch, fail)
    assert run(process_job, job_id).is_completed()
    ((*seen,),) = tables
    assert {each.chunk: each.retries for each in seen if each.retries} == {2: 2, 5: 1}
    check_created(shop, job_id, MANIFEST)


def test_an_error_that_no_retry_can_mend_ends_its_group_and_fails_the_job(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def fail(chunk_no: int) -> None:
        tries.append(chunk_no)
        if chunk_no:
            raise StoreUnavailable("The store is gone.")

    job_id = shop.submit()
    replace(monkeypatch, fail)
    assert run(process_job, job_id).is_failed()
    assert (shop.job(job_id).status, shop.job(job_id).error_code) == (
        JobStatus.FAILED,
        "store_unavailable",
    )
    assert len(tries) == len(set(tries)) <= 1 + 3


def test_a_run_that_is_paused_begins_no_further_chunk(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def pause(chunk_no: int) -> None:
        made.append(chunk_no)
        context = FlowRunContext.get()
        if chunk_no and context:
            context.flow_run_suspension_request.mark_requested(Suspended())

    job_id = shop.submit()
    with monkeypatch.context() as patch:
        replace(patch, pause)
        with pytest.raises(Pause):
            run(process_job, job_id)
    assert len(missing(job_id)) == CHUNKS - len(made) > 0
    assert run(process_job, job_id).is_completed()
    check_created(shop, job_id, MANIFEST)


def test_the_bar_moves_while_a_group_is_under_way(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []

    def look(job_id: str, progress: object) -> None:
        shares.append(ingestion.share_recorded(job_id))

    monkeypatch.setattr("flows.process_job._show_progress", look)
    monkeypatch.setattr("flows.process_job._LOOKS_EVERY_S", 0.01)
    assert run(process_job, shop.submit()).is_completed()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len({share for share in shares if 0.1 < share < 0.9}) > 2
