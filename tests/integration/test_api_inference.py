"""Truth inference over HTTP: what follows from a job's labels, wherever they are stored."""

import json
import random
from typing import Any, cast

import pytest

from api.routes import inference as route
from blocks.domain.ids import new_id
from blocks.domain.model import InferenceMethod
from blocks.inference.dawid_skene import infer
from blocks.store import label_columns, quality
from blocks.store.archive import archive_some
from blocks.store.database import Transaction
from blocks.store.jobs import Job
from tests.support.api_world import Api
from tests.support.mixed_job import make_mixed_job
from tests.support.plans import Explained
from tests.support.reference_inference import frame
from tests.support.store_shop import OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration

METHODS = list(InferenceMethod)
methods = pytest.mark.parametrize("method", METHODS)
# Two who are right, and one who says fox of every dog: tasks are cat, dog, cat, dog …
SKILLED = 40


def labelled_job(shop: Shop) -> Job:
    """A job in which two err once each where the third errs too, so that the majority is wrong there."""
    job = shop.processing(make_chunk(SKILLED))
    truth = [("cat", "dog")[task % 2] for task in range(SKILLED)]
    said = [list(truth), list(truth), [{"dog": "fox"}.get(each, each) for each in truth]]
    said[0][1] = "fox"
    for annotator, options in zip(shop.annotators(3), said, strict=True):
        shop.claim(annotator)
        shop.label(annotator, *((job.task_id(n), option) for n, option in enumerate(options)))
    return job


def inferred(api: Api, job: Job, method: InferenceMethod) -> dict[str, Any]:
    answer = api.get(f"/v1/jobs/{job.job_id}/quality?method={method}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["inference"]
    return found


def changes(api: Api, job: Job, query: str = "") -> list[dict[str, Any]]:
    answer = api.get(f"/v1/jobs/{job.job_id}/quality/changes{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def results(shop: Shop, job: Job) -> dict[str, str | None]:
    """The option on which each ended task settled, None for one that failed."""
    rows = shop.run("select task_no, outcome from tallies where outcome is not null")
    names = [None, *job.options]
    return {job.task_id(row["task_no"]): names[row["outcome"]] for row in rows}


def ended_labels(shop: Shop) -> list[tuple[int, int, int]]:
    rows = shop.run(
        "select task_no, annotator_no, option from labels join tallies using (job_no, task_no) "
        "where outcome is not null"
    )
    return [(row["task_no"], row["annotator_no"], row["option"]) for row in rows]


def test_a_wrong_majority_is_found_by_who_errs_how(api: Api) -> None:
    job = labelled_job(api.shop)
    found = inferred(api, job, InferenceMethod.DAWID_SKENE)
    wrong = {"task_id": job.task_id(1), "label": "fox", "inferred": "dog"}
    (change,) = found["changes"]
    assert change.pop("posterior") > 0.9
    assert change == wrong
    assert (found["labels_changed"], found["labels_added"]) == (1, 0)
    assert (found["tasks"], found["labels"], found["converged"]) == (SKILLED, 3 * SKILLED, True)
    assert [each["option"] for each in found["priors"]] == OPTIONS
    accuracies = sorted(each["accuracy"] for each in found["annotators"])
    assert accuracies[0] == pytest.approx(0.5, abs=0.05)
    assert accuracies[1] > 0.9
    worst = min(found["annotators"], key=lambda each: each["accuracy"])
    of_dogs = worst["confusion"][OPTIONS.index("dog")]
    assert of_dogs[OPTIONS.index("fox")] > 0.9
    assert sum(of_dogs) == pytest.approx(1, abs=2e-4)


@methods
@pytest.mark.parametrize("end", ["completed", "cancelled"])  # with failed tasks, and with open ones
def test_the_answer_is_what_the_labels_of_ended_tasks_give(
    api: Api, method: InferenceMethod, end: str
) -> None:
    job = make_mixed_job(api.shop, end, options=25)
    expected = infer(frame(ended_labels(api.shop)), method)
    found = inferred(api, job, method)
    outcomes = results(api.shop, job)
    likeliest = {
        job.task_id(number): (job.options[option - 1], round(posterior, 4))
        for number, option, posterior in expected.tasks.iter_rows()
    }
    assert likeliest.keys() == outcomes.keys()
    listed = changes(api, job, f"?method={method}")
    assert [(each["task_id"], each["inferred"], each["posterior"]) for each in listed] == [
        (id_, *likeliest[id_]) for id_ in likeliest if likeliest[id_][0] != outcomes[id_]
    ]
    assert {each["task_id"]: each["label"] for each in listed} == {
        each["task_id"]: outcomes[each["task_id"]] for each in listed
    }
    failed = sum(each["label"] is None for each in listed)
    assert bool(failed) == (end == "completed")
    assert (found["labels_added"], found["labels_changed"]) == (failed, len(listed) - failed)
    assert found["iterations"] == expected.iterations
    assert found["method"] == method
    ids = api.shop.run("select annotator_no, annotator_id from annotators")
    by_no = {row["annotator_no"]: row["annotator_id"] for row in ids}
    accuracy = {
        by_no[number]: round(each, 4)
        for number, each in zip(expected.patterns.annotators, expected.model.accuracy, strict=True)
    }
    assert {each["annotator_id"]: each["accuracy"] for each in found["annotators"]} == accuracy
    assert sum(each["labels"] for each in found["annotators"]) == found["labels"]


def test_the_answer_shows_the_surest_changes_and_the_file_has_all_in_order(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "_CHANGES_SHOWN", 5)
    monkeypatch.setattr(route, "_LINES_A_BLOCK", 3)
    job = make_mixed_job(api.shop, "completed", options=3)
    listed = changes(api, job)
    assert len(listed) > 10
    numbers = [api.shop.find_task(each["task_id"])[1] for each in listed]
    assert numbers == sorted(numbers)
    shown = inferred(api, job, InferenceMethod.DAWID_SKENE)["changes"]
    assert [each["posterior"] for each in shown] == sorted(
        (each["posterior"] for each in listed), reverse=True
    )[:5]
    assert all(each in listed for each in shown)


def test_without_a_method_the_report_is_as_it_was_and_changes_are_by_dawid_skene(api: Api) -> None:
    job = make_mixed_job(api.shop, "completed", options=3)
    plain = api.get(f"/v1/jobs/{job.job_id}/quality").content
    more = api.get(f"/v1/jobs/{job.job_id}/quality?method=one_coin").content
    assert b"inference" not in plain
    assert more.startswith(plain[:-1] + b',"inference":{"method":"one_coin"')
    assert changes(api, job) == changes(api, job, "?method=dawid_skene")
    assert changes(api, job) != changes(api, job, "?method=one_coin")


def test_archived_labels_give_the_same_at_any_step(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks.store.archive._PAGES_A_STEP", 3)
    job = make_mixed_job(api.shop, "completed", options=3)
    reports = [inferred(api, job, method) for method in METHODS]
    listed = changes(api, job)
    while api.shop.do(archive_some, after_s=0):
        assert [inferred(api, job, method) for method in METHODS] == reports
        assert changes(api, job) == listed
    assert api.shop.value("select count(*) from labels") == 0


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_labels_are_read_whole_however_many_come_at_a_time(
    shop: Shop, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_columns, "_ROWS_A_STEP", rows)
    job = shop.processing(make_chunk(9), make_chunk(5), options=["a", "b"])
    rng = random.Random(1)
    for annotator, first in zip(shop.annotators(4), (0, 1, 3, 5), strict=True):
        tasks = shop.claim(annotator)[first:]
        shop.label(annotator, *((task.task_id, rng.choice("ab")) for task in tasks))
    expected = ended_labels(shop)
    assert 0 < len(expected) < shop.value("select count(*) from labels")
    with shop.database.long_read() as tx:
        found = label_columns.read_ended(tx, job.job_no, labels_max=100)
    read = found.labels.select("task_no", "annotator_no", "option").rows()
    assert sorted(read) == sorted(expected)
    outcomes = dict(found.labels.select("task_no", "outcome").rows())
    assert outcomes == {
        row["task_no"]: row["outcome"]
        for row in shop.run("select task_no, outcome from tallies where outcome is not null")
    }
    assert len(found.annotator_ids) == len({each[1] for each in expected})


def test_labels_that_move_while_they_are_read_are_read_once(shop: Shop) -> None:
    job = make_mixed_job(shop, "completed", options=3)
    expected = sorted(ended_labels(shop))
    with shop.database.long_read() as tx:
        quality.measure(tx, job.job_no)
        while shop.do(archive_some, after_s=0):
            pass
        found = label_columns.read_ended(tx, job.job_no, labels_max=10**6)
    assert shop.value("select count(*) from labels") == 0
    assert sorted(found.labels.select("task_no", "annotator_no", "option").rows()) == expected


@methods
def test_a_job_without_a_result_has_nothing_to_infer_from(
    api: Api, method: InferenceMethod
) -> None:
    job = api.shop.processing(make_chunk(2))
    annotator = api.shop.annotator()
    (first, *_) = api.shop.claim(annotator)
    api.shop.label(annotator, (first.task_id, "cat"))
    assert inferred(api, job, method) == {
        "method": method,
        "iterations": 0,
        "converged": True,
        "tasks": 0,
        "labels": 0,
        "priors": [],
        "annotators": [],
        "labels_changed": 0,
        "labels_added": 0,
        "changes": [],
    }
    assert changes(api, job) == []


def test_matrices_that_have_no_room_are_left_out_from_those_with_the_fewest_labels(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_mixed_job(api.shop, "cancelled", options=3)
    monkeypatch.setattr(route, "_CONFUSION_NUMBERS_MAX", 2 * 3**2)
    annotators = inferred(api, job, InferenceMethod.DAWID_SKENE)["annotators"]
    shown = [each["labels"] for each in annotators if each["confusion"]]
    left_out = [each["labels"] for each in annotators if not each["confusion"]]
    assert (len(shown), len(left_out)) == (2, 2)
    assert min(shown) >= max(left_out)
    assert not any(
        each["confusion"] for each in inferred(api, job, InferenceMethod.ONE_COIN)["annotators"]
    )


@pytest.mark.parametrize("place", ["tables", "archive"])
def test_more_labels_than_can_be_inferred_from_are_refused(
    api: Api, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = labelled_job(api.shop)
    while place == "archive" and api.shop.do(archive_some, after_s=0):
        pass
    paths = [
        f"/v1/jobs/{job.job_id}/{path}" for path in ("quality?method=one_coin", "quality/changes")
    ]

    def asked() -> set[tuple[int, str | None]]:
        answers = map(api.get, paths)
        return {
            (each.status_code, (each.is_error and each.json()["code"]) or None) for each in answers
        }

    monkeypatch.setattr(route, "_LABELS_MAX", 3 * SKILLED)
    assert asked() == {(200, None)}
    monkeypatch.setattr(route, "_LABELS_MAX", 3 * SKILLED - 1)
    assert asked() == {(422, "too_many_labels")}
    monkeypatch.undo()
    monkeypatch.setattr("blocks.inference.dawid_skene._CELLS_MAX", 10)
    assert asked() == {(422, "too_large_to_infer")}
    assert api.get(f"/v1/jobs/{job.job_id}/quality").status_code == 200


def test_changes_of_another_customers_job_are_as_of_one_that_never_existed(api: Api) -> None:
    job = api.shop.processing(make_chunk(1))
    answers = [
        api.get(f"/v1/jobs/{job.job_id}/quality/changes", api.new_customer()),
        api.get(f"/v1/jobs/{new_id('job')}/quality/changes"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1


def test_what_is_computed_holds_no_snapshot(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_mixed_job(api.shop, "completed", options=3)
    under_way: list[int] = []

    def look(*arguments: Any) -> Any:
        query = (
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and application_name = 'refinery long read' and xact_start is not null"
        )
        under_way.append(api.shop.value(query))
        return infer(*arguments)

    monkeypatch.setattr(route, "infer", look)
    inferred(api, job, InferenceMethod.ONE_COIN)
    changes(api, job)
    assert under_way == [0, 0]


@pytest.mark.parametrize(
    "statement, names",
    [("labels", ("task_no", "annotator_no", "option")), ("outcomes", ("task_no", "outcome"))],
)
def test_each_step_begins_where_the_one_before_has_ended(
    shop: Shop, statement: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_columns, "_ROWS_A_STEP", 200)
    job = make_mixed_job(shop, "completed", options=3)
    with shop.held() as tx:
        tx.execute(label_columns._SQL["by_key"])
        explained = Explained(tx)
        query = label_columns._SQL[statement]
        steps = list(label_columns._read(cast(Transaction, explained), query, job.job_no, names))
    scans = [node for node in explained.nodes() if "Scan" in node["Node Type"]]
    by_key = [node for node in scans if "task_no" in node.get("Index Cond", "")]
    assert len(steps) > 2
    assert len(by_key) == len(steps)
    assert not {node["Node Type"] for node in explained.nodes()} & {"Seq Scan", "Sort"}
    assert all(node["Actual Rows"] <= 200 for node in by_key)
