"""Quality over HTTP: known labels come to known numbers."""

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from api.routes import quality_views
from blocks.domain.ids import new_id
from blocks.settings import AnnotatorNames, Settings
from blocks.store import customers, jobs, quality
from blocks.store.jobs import Job
from tests.support.api_world import Api, make_app
from tests.support.store_shop import OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration

OPTION_OF = {"c": "cat", "d": "dog", "f": "fox", "a": "a", "b": "b", "x": "x", "y": "y"}


def vote(shop: Shop, job: Job, *votes: str) -> list[int]:
    """The numbers of annotators who labelled: `votes[task][n]` is what the nth said of a task."""
    annotators = shop.annotators(max(map(len, votes)))
    shop.claim(annotators[0])  # labels are for tasks that somebody was handed
    for n, annotator in enumerate(annotators):
        labels = [
            (job.task_id(task), OPTION_OF[said[n]])
            for task, said in enumerate(votes)
            if n < len(said)
        ]
        assert {str(outcome) for outcome in shop.label(annotator, *labels)} <= {
            "accepted",
            "settled",
        }
    return annotators


def measured(api: Api, job: Job) -> dict[str, Any]:
    response = api.get(f"/v1/jobs/{job.job_id}/quality")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def bins(found: dict[str, Any]) -> dict[float, int]:
    """Bins that are not empty, by their upper bound."""
    return {each["upto"]: each["tasks"] for each in found["confidence"] if each["tasks"]}


def test_known_labels_come_to_known_numbers(api: Api) -> None:
    job = api.shop.processing(make_chunk(5), consensus_threshold=5)
    annotators = vote(api.shop, job, "ccccc", "cccdd", "ddddc", "ccddfc", "cc")
    found = measured(api, job)
    ids = [
        api.shop.value("select annotator_id from annotators where annotator_no = %s", number)
        for number in annotators
    ]
    agreed = [(4, 4), (4, 4), (4, 3), (4, 2), (4, 1), (1, 1)]
    assert found.pop("seconds_per_label") < 60
    people = found.pop("annotators")
    # All were given the job at once, and one of them has claimed it.
    assert sum(each.pop("seconds_per_label") is not None for each in people) == 1
    assert people == sorted(
        (
            {
                "annotator_id": id_,
                "name": None,
                "labels": n,
                "agreed": same,
                "agreement": same / n,
                "failed": 0,
                "open": opened,
                "skips": {"unclear": 0, "broken": 0, "none_of_these": 0},
                "replaced": 0,
                "withdrawn": 0,
            }
            for id_, (n, same), opened in zip(ids, agreed, [1, 1, 0, 0, 0, 0], strict=True)
        ),
        key=lambda each: each["annotator_id"],
    )
    assert bins(found) == {0.5: 1, 0.6: 1, 0.8: 1, 1.0: 1}
    assert len(found.pop("confidence")) == 10
    assert found == {
        "job_id": job.job_id,
        "tasks_settled": 4,
        "tasks_failed": 0,
        "agreed_share": 1.0,
        "unanimous_share": 0.25,
        "mean_confidence": 0.725,
        "options": [
            {"option": "cat", "labels": 12, "tasks": 3, "open": 2},
            {"option": "dog", "labels": 8, "tasks": 1, "open": 0},
            {"option": "fox", "labels": 1, "tasks": 0, "open": 0},
        ],
        "labels": 21,
        "labels_saved": 0,
        "labels_per_task": [{"labels": 5, "tasks": 3}, {"labels": 6, "tasks": 1}],
        "open": {"tasks": 1, "labels": 2},
        "confusion": [[11, 4, 1], [1, 4, 0], [0, 0, 0]],
        "accuracy": None,
    }


def test_the_bins_are_ten_and_without_gaps(api: Api) -> None:
    found = measured(api, api.shop.processing(make_chunk(1)))["confidence"]
    assert [each["above"] for each in found] == [n / 10 for n in range(10)]
    assert [each["upto"] for each in found] == [n / 10 for n in range(1, 11)]


def test_a_confidence_on_a_border_is_in_the_bin_below_it() -> None:
    for labels in range(1, 21):
        for votes in range(1, labels + 1):
            made = quality_views._bins(Counter({(votes, labels): 1}))
            (found,) = [n for n, each in enumerate(made) if each.tasks]
            assert Fraction(found, 10) < Fraction(votes, labels) <= Fraction(found + 1, 10)


def test_tasks_without_consensus_lower_the_share_and_count_for_no_annotator(api: Api) -> None:
    job = api.shop.processing(make_chunk(4), consensus_threshold=2, options=["a", "b", "x", "y"])
    vote(api.shop, job, "aa", "abxy", "baa", "aa")
    found = measured(api, job)
    assert (found["tasks_settled"], found["tasks_failed"]) == (3, 1)
    assert (found["agreed_share"], found["unanimous_share"]) == (0.75, 0.5)
    assert found["mean_confidence"] == round((1 + 2 / 3 + 1) / 3, 4)
    assert bins(found) == {0.7: 1, 1.0: 2}
    assert [(each["labels"], each["tasks"]) for each in found["options"]] == [
        (7, 3), (2, 0), (1, 0), (1, 0),
    ]  # fmt: skip
    assert found["labels"] == 11
    assert found["labels_per_task"] == [
        {"labels": 2, "tasks": 2}, {"labels": 3, "tasks": 1}, {"labels": 4, "tasks": 1},
    ]  # fmt: skip
    counted = sorted(
        (each["labels"], each["agreed"], each["failed"]) for each in found["annotators"]
    )
    assert counted == [(0, 0, 1), (1, 1, 1), (3, 2, 1), (3, 3, 1)]


def test_a_job_with_failed_tasks_only_has_shares_of_zero_and_no_confidence(api: Api) -> None:
    job = api.shop.processing(make_chunk(1), consensus_threshold=2, options=["a", "b", "x", "y"])
    vote(api.shop, job, "abxy")
    found = measured(api, job)
    assert (found["agreed_share"], found["unanimous_share"]) == (0, 0)
    assert (found["mean_confidence"], bins(found)) == (None, {})
    assert {(each["agreement"], each["failed"]) for each in found["annotators"]} == {(None, 1)}
    assert len(found["annotators"]) == 4


def test_labels_that_stop_early_made_unnecessary_are_counted(api: Api) -> None:
    job = api.shop.processing(make_chunk(4), consensus_threshold=5, stop_early=True)
    vote(api.shop, job, "ccc", "ccdc", "cdcdd", "ccddfd")
    found = measured(api, job)
    assert found["labels_saved"] == 2 + 1 + 0 + 0
    assert found["labels"] == 3 + 4 + 5 + 6
    assert [each["labels"] for each in found["labels_per_task"]] == [3, 4, 5, 6]


def test_without_stop_early_nothing_is_saved(api: Api) -> None:
    job = api.shop.processing(make_chunk(1), consensus_threshold=5)
    vote(api.shop, job, "ccccc")
    assert measured(api, job)["labels_saved"] == 0


@pytest.mark.parametrize("tasks", [0, 3])
def test_a_job_that_nobody_has_labelled_has_no_shares(api: Api, tasks: int) -> None:
    job = api.shop.processing(make_chunk(tasks, bad=2))
    found = measured(api, job)
    assert sum(each["tasks"] for each in found.pop("confidence")) == 0
    assert found == {
        "job_id": job.job_id,
        "tasks_settled": 0,
        "tasks_failed": 0,
        "agreed_share": None,
        "unanimous_share": None,
        "mean_confidence": None,
        "options": [{"option": option, "labels": 0, "tasks": 0, "open": 0} for option in OPTIONS],
        "labels": 0,
        "labels_saved": 0,
        "labels_per_task": [],
        "open": {"tasks": 0, "labels": 0},
        "seconds_per_label": None,
        "confusion": [[0] * len(OPTIONS)] * len(OPTIONS),
        "annotators": [],
        "accuracy": None,
    }


def test_a_job_that_was_only_accepted_or_has_failed_is_measured_as_far_as_it_came(
    api: Api,
) -> None:
    assert measured(api, api.shop.submit())["labels"] == 0
    job = api.shop.processing(make_chunk(2), ingested=False, consensus_threshold=2)
    vote(api.shop, job, "cc", "c")
    api.shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed.")
    found = measured(api, job)
    assert (found["tasks_settled"], found["tasks_failed"], found["labels"]) == (1, 0, 2)


def test_jobs_are_measured_apart(api: Api) -> None:
    one = api.shop.processing(make_chunk(1), consensus_threshold=2)
    two = api.shop.processing(make_chunk(1), consensus_threshold=2)
    vote(api.shop, one, "cc")
    vote(api.shop, two, "dd")
    for job, winner in ((one, "cat"), (two, "dog")):
        found = measured(api, job)
        assert (found["labels"], len(found["annotators"])) == (2, 2)
        assert [each["option"] for each in found["options"] if each["tasks"]] == [winner]


@pytest.mark.parametrize(
    "names, shown",
    [(AnnotatorNames.GRANTED, ["granted"]), (AnnotatorNames.ALL, ["granted", "of all", "other"])],
)
def test_names_are_shown_of_those_whom_the_operator_lets_a_customer_know(
    api_settings: Settings, shop: Shop, names: AnnotatorNames, shown: list[str]
) -> None:
    settings = msgspec.structs.replace(api_settings, annotator_names=names)
    with TestClient(make_app(settings)) as client:
        api = Api(client, shop)
        job = shop.processing(make_chunk(1), consensus_threshold=4)
        other = shop.do(customers.add_customer, "Other")
        people = vote(shop, job, "ccc")
        for number, (name, grants) in zip(
            people, [("granted", [shop.customer_id]), ("of all", None), ("other", [other])], strict=True
        ):  # fmt: skip
            shop.run(
                "update annotators set name = %s, customer_ids = %s where annotator_no = %s",
                name, grants, number,
            )  # fmt: skip
        found = measured(api, job)["annotators"]
        assert sorted(each["name"] for each in found if each["name"]) == shown
        assert len(found) == 3
        assert all(each["annotator_id"].startswith("ann_") for each in found)


def test_the_confusion_of_one_annotator_is_theirs_alone(api: Api) -> None:
    job = api.shop.processing(make_chunk(3), consensus_threshold=3)
    vote(api.shop, job, "ccd", "ddc", "cdc")
    found = measured(api, job)
    parts = [
        api.get(f"/v1/jobs/{job.job_id}/quality?annotator={each['annotator_id']}").json()[
            "confusion"
        ]
        for each in found["annotators"]
    ]
    assert found["confusion"] == [[4, 2, 0], [1, 2, 0], [0, 0, 0]]
    assert sorted(parts) == [
        [[1, 1, 0], [0, 1, 0], [0, 0, 0]],
        [[1, 1, 0], [1, 0, 0], [0, 0, 0]],
        [[2, 0, 0], [0, 1, 0], [0, 0, 0]],
    ]


@pytest.mark.parametrize("is_known", [True, False])
def test_the_confusion_of_somebody_who_has_not_worked_on_the_job_is_not_found(
    api: Api, is_known: bool
) -> None:
    job = api.shop.processing(make_chunk(1))
    vote(api.shop, job, "c")
    idle = api.shop.annotator()
    known = api.shop.value("select annotator_id from annotators where annotator_no = %s", idle)
    name = known if is_known else new_id("ann")
    answer = api.get(f"/v1/jobs/{job.job_id}/quality?annotator={name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "annotator_not_found")


def test_another_customers_job_is_as_one_that_never_existed(api: Api) -> None:
    job = api.shop.processing(make_chunk(1))
    other = api.new_customer()
    answers = [
        api.get(f"/v1/jobs/{job.job_id}/quality", other),
        api.get(f"/v1/jobs/{new_id('job')}/quality"),
        api.get("/v1/jobs/x/quality"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1


def test_an_annotators_key_measures_nothing(api: Api) -> None:
    job = api.shop.processing(make_chunk(1))
    for id_ in (job.job_id, new_id("job")):
        answer = api.get(f"/v1/jobs/{id_}/quality", api.annotator)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


class Interrupted:
    """A transaction in which something else happens after each of its statements."""

    def __init__(self, tx: Any, meanwhile: Callable[[], object]) -> None:
        self._tx = tx
        self._meanwhile = meanwhile

    def execute(self, *arguments: Any, **options: Any) -> Any:
        cursor = self._tx.execute(*arguments, **options)
        self._meanwhile()
        return cursor


def test_labels_that_come_in_meanwhile_do_not_set_the_numbers_at_odds(shop: Shop) -> None:
    job = shop.processing(make_chunk(20), consensus_threshold=2)
    people = shop.annotators(2)

    def settle_one() -> None:
        for annotator in people:
            (task,) = shop.claim(annotator, 1)
            shop.label(annotator, (task.task_id, "cat"))

    settle_one()
    tx: Any
    with shop.database.long_read() as tx:
        found = quality.measure(Interrupted(tx, settle_one), job.job_no)  # type: ignore[arg-type]
    settled = sum(each.tasks for each in found.outcomes)
    assert settled >= 1
    assert [(each.outcome, each.option, each.labels) for each in found.votes] == [
        (1, 1, 2 * settled)
    ]
    assert [each.labels for each in found.annotators] == [settled] * 2
    assert shop.job(job).tasks_done > settled


def test_labels_of_tasks_without_a_result_are_counted_as_open(api: Api) -> None:
    job = api.shop.processing(make_chunk(2), consensus_threshold=2)
    vote(api.shop, job, "cdf", "cd")
    found = measured(api, job)
    assert (found["tasks_settled"], found["labels"]) == (0, 0)
    assert found["open"] == {"tasks": 2, "labels": 5}
    assert [each["open"] for each in found["options"]] == [2, 2, 1]
    counted = sorted((each["open"], each["agreement"]) for each in found["annotators"])
    assert counted == [(1, None), (2, None), (2, None)]
