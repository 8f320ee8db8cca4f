"""What a job waits for, as its customer is told."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from litestar.testing import TestClient

from blocks.domain.model import SkipReason
from blocks.settings import Settings
from blocks.store import customers, jobs, runs, waits
from blocks.store.jobs import Job
from blocks.store.label_changes import Skip
from tests.support.api_world import Api, make_app
from tests.support.side import wait_until
from tests.support.store_shop import DELIVERY, OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration


@pytest.fixture
def quiet(api_settings: Settings, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """The API with a launcher that does nothing, and no annotator."""
    monkeypatch.setattr("api.background.listener.Listener._run", lambda _: None)
    with TestClient(make_app(api_settings)) as client:
        found = Api(client, shop)
        shop.run("update api_keys set revoked_at = now() where annotator_no is not null")
        yield found


def waiting(api: Api, job: Job) -> Any:
    """What the job waits for, which the list says as well."""
    found = api.get(f"/v1/jobs/{job.job_id}").json()["waiting_for"]
    listed = {each["job_id"]: each for each in api.get("/v1/jobs").json()["jobs"]}
    assert listed[job.job_id]["waiting_for"] == found
    return found


def people(api: Api, count: int) -> list[int]:
    return api.shop.annotators(count)


# Prefect, and its turn


def test_a_job_waits_for_a_prefect_that_is_away(api: Api) -> None:
    job = api.shop.submit()
    path = f"/v1/jobs/{job.job_id}"
    wait_until(lambda: api.get(path).json()["waiting_for"] is not None)
    response = api.get(path)
    found = response.json()["waiting_for"]
    assert (found["what"], found["gives_up_at"]) == ("prefect", None)
    assert "127.0.0.1" not in found["reason"]
    assert found["next_try_at"] > found["since"]
    api.shop.run("update runs set failures = failures + 7, not_before = now() + interval '1 hour'")
    again = api.get(path, {**api.customer, "If-None-Match": response.headers["etag"]})
    assert again.status_code == 304
    assert api.get(path).json()["waiting_for"]["tries"] > 7


def test_a_job_waits_for_its_turn(quiet: Api) -> None:
    job = quiet.shop.submit()
    assert waiting(quiet, job) is None
    quiet.shop.run("update runs set waiting_since = now() - interval '3 seconds'")
    assert waiting(quiet, job)["what"] == "turn"


def test_a_job_waits_for_a_worker(quiet: Api) -> None:
    job = quiet.shop.submit()
    quiet.shop.run("update runs set launched_at = now(), launches = 1")
    assert waiting(quiet, job) is None
    quiet.shop.run("update runs set launched_at = now() - interval '6 seconds'")
    found = waiting(quiet, job)
    assert (found["what"], "no worker" in found["reason"]) == ("prefect", True)
    quiet.shop.do(jobs.begin, job.job_no)
    assert waiting(quiet, job) is None


@pytest.mark.parametrize("delay_s, is_stopped", [(60.0, False), (None, True)])
def test_a_job_waits_for_another_run(quiet: Api, delay_s: float | None, is_stopped: bool) -> None:
    job = quiet.shop.submit()
    quiet.shop.do(runs.take, runs_max=9, per_customer_max=9)
    (launched,) = quiet.shop.do(runs.list_under_way, after=0, limit=9)
    assert quiet.shop.do(runs.wait_again, launched, error="It crashed.", delay_s=delay_s)
    found = waiting(quiet, job)
    assert found["what"] == "prefect"
    assert (found["next_try_at"] is None) is is_stopped
    assert ("operator" in found["reason"]) is is_stopped


@pytest.mark.parametrize("kind", ["process_job", "deliver_job"])
def test_a_failure_is_told_until_the_work_is_done(quiet: Api, kind: str) -> None:
    shop = quiet.shop
    if kind == "process_job":
        job, what = shop.submit(), "store"
    else:
        job, what = shop.processing(make_chunk(0, bad=1), delivery=DELIVERY), "delivery"
    etags = set()
    for tries in (1, 2, 3):
        shop.do(
            waits.record_failure, job.job_id, kind, reason="It is away.", delay_s=9, wait_s_max=3600
        )
        found = waiting(quiet, job)
        assert (found["what"], found["reason"], found["tries"]) == (what, "It is away.", tries)
        etags.add(quiet.get(f"/v1/jobs/{job.job_id}").headers["etag"])
    assert len(etags) == 1
    shop.do(jobs.cancel, job.job_no)
    assert waiting(quiet, job) is None


# Annotators


def label(api: Api, job: Job, *said: Sequence[int]) -> list[int]:
    """Each of so many new people says these options of the tasks, in order."""
    found = people(api, len(said))
    for annotator, options in zip(found, said, strict=True):
        claimed = api.shop.claim(annotator, job_id=job.job_id)
        labels = [(task.task_id, OPTIONS[n]) for task, n in zip(claimed, options, strict=False)]
        api.shop.label(annotator, *labels)
    return found


def test_three_people_of_three_minds_are_one_too_few(quiet: Api) -> None:
    job = quiet.shop.processing(make_chunk(2), consensus_threshold=2)
    assert waiting(quiet, job)["annotators"] == 2
    label(quiet, job, [0, 0], [1, 0], [2])
    found = waiting(quiet, job)
    assert (found["what"], found["annotators"], found["tries"]) == ("annotators", 1, 0)
    assert "1 more annotator is needed" in found["reason"]
    (fourth,) = people(quiet, 1)
    assert waiting(quiet, job) is None
    quiet.shop.answer(fourth, "cat")
    assert quiet.shop.job(job).status == "completed"
    assert waiting(quiet, job) is None


@pytest.mark.parametrize(
    "threshold, stop_early, said, wanted",
    [
        (3, False, [], 3),
        (3, False, [[0]], 2),
        (3, False, [[0], [0]], 1),
        (3, True, [], 2),
        (3, True, [[0]], 1),
        (3, True, [[0], [1]], 1),
        (2, False, [[0], [1]], 1),
        (10, False, [[0]] * 9, 1),
    ],
)
def test_so_many_more_people_are_wanted(
    quiet: Api, threshold: int, stop_early: bool, said: list[list[int]], wanted: int
) -> None:
    job = quiet.shop.processing(make_chunk(1), consensus_threshold=threshold, stop_early=stop_early)
    label(quiet, job, *said)
    assert waiting(quiet, job)["annotators"] == wanted
    people(quiet, wanted)
    assert waiting(quiet, job) is None


@pytest.mark.parametrize("skippers, others, wanted", [(1, 1, 1), (5, 0, 2), (5, 2, 0)])
def test_who_has_skipped_a_task_is_not_counted(
    quiet: Api, skippers: int, others: int, wanted: int
) -> None:
    """Even where so many people would be enough for any labels."""
    shop = quiet.shop
    job = shop.processing(make_chunk(1), consensus_threshold=2, skips_max=3)
    for annotator, reason in zip(people(quiet, skippers), [*SkipReason] * 2, strict=False):
        (task,) = shop.claim(annotator, job_id=job.job_id)
        assert shop.enter(annotator, Skip(task.task_id, reason)) == ["skipped"]
    people(quiet, others)
    assert (waiting(quiet, job) or {"annotators": 0})["annotators"] == wanted
    people(quiet, wanted)
    assert waiting(quiet, job) is None


def test_who_is_revoked_is_not_counted_and_their_labels_are(quiet: Api) -> None:
    job = quiet.shop.processing(make_chunk(1), consensus_threshold=3)
    one, _ = label(quiet, job, [0], [1])
    quiet.shop.run("update api_keys set revoked_at = now() where annotator_no = %s", one)
    assert waiting(quiet, job)["annotators"] == 1
    quiet.shop.run("update api_keys set revoked_at = now() where annotator_no is not null")
    assert waiting(quiet, job)["annotators"] == 1
    people(quiet, 1)
    assert waiting(quiet, job) is None


def test_somebody_with_two_keys_is_one(quiet: Api) -> None:
    job = quiet.shop.processing(make_chunk(1), consensus_threshold=2)
    for _ in range(2):
        quiet.shop.do(customers.add_annotator_key, "Ann")
    assert waiting(quiet, job)["annotators"] == 1


def test_a_job_that_is_settled_or_without_tasks_wants_nobody(quiet: Api) -> None:
    for job in (
        quiet.shop.processing(make_chunk(0, bad=1)),
        quiet.shop.processing(make_chunk(1), ingested=False),
    ):
        assert (waiting(quiet, job) or {}).get("annotators") is None


# A task, to which a label came


def test_a_task_says_how_many_labels_it_has_and_not_whose(quiet: Api) -> None:
    job = quiet.shop.processing(make_chunk(1))
    (one,) = people(quiet, 1)
    (task,) = quiet.shop.claim(one)
    assert quiet.get(f"/v1/tasks/{task.task_id}").json()["labels"] == 0
    quiet.shop.label(one, (task.task_id, "cat"))
    response = quiet.get(f"/v1/tasks/{task.task_id}")
    assert (response.json()["labels"], response.json()["status"]) == (1, "in_progress")
    assert "ann" not in response.text
    assert waiting(quiet, job)["annotators"] == 2
