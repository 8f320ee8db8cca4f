"""Results of jobs that weigh labels, have gold or show labels, wherever their labels are."""

import json
import random
from datetime import datetime
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.routes import quality_views, task_views
from blocks.domain import consensus
from blocks.domain.consensus import ALL
from blocks.domain.gold import Majority, SkilledLabel, Weighted, estimate
from blocks.domain.model import Compression, SkipReason
from blocks.lines.posteriors import confidences
from blocks.store import disagreements, label_columns, quality, results, tasks, waits
from blocks.store.archive import archive_some
from blocks.store.jobs import Job
from blocks.store.label_changes import Skip
from flows.writing import parquet
from tests.support.store_shop import DELIVERY, Shop, make_chunk
from tests.support.weighted_job import (
    TARGET,
    WEIGHTED,
    compose,
    make_gold,
    make_weighted_job,
    shown,
)

pytestmark = pytest.mark.integration

MAJORITY = {"target_confidence": None, "labels_max": None}
KINDS: dict[str, dict[str, Any]] = {
    "weighted": {"include_labels": False},
    "weighted, labels": {"include_labels": True},
    "majority, labels": {"include_labels": True, **MAJORITY},
    "majority": MAJORITY,
}


def archive_all(shop: Shop) -> None:
    while shop.do(archive_some, after_s=0):
        pass
    assert shop.value("select count(*) from tallies") == 0


def export(shop: Shop, job: Job) -> list[bytes]:
    with shop.database.long_read() as tx:
        return b"".join(results.export(tx, job.job_no)).splitlines()


def errors(shop: Shop, job: Job) -> list[dict[str, Any]]:
    with shop.database.long_read() as tx:
        return [json.loads(line.to_json()) for line in results.list_line_errors(tx, job.job_no)]


def view(shop: Shop, job: Job) -> quality_views.QualityView:
    return quality_views.view(job, shop.do(quality.measure, job.job_no), {})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["completed", "cancelled"])
def test_results_are_those_of_the_reference_before_and_in_the_archive(
    shop: Shop, end: str, kind: str
) -> None:
    job = make_weighted_job(shop, end, **KINDS[kind])
    expected = compose(shop, job)
    lines, failed, found = export(shop, job), errors(shop, job), view(shop, job)
    assert [shown(line) for line in lines] == expected
    assert 20 < sum("gold" in line for line in expected) < len(expected) - 20
    done = shop.job(job)
    assert (done.tasks_done, done.tasks_failed) == (len(lines), len(failed))
    archive_all(shop)
    assert export(shop, job) == lines
    assert errors(shop, job) == failed
    assert view(shop, job) == found
    numbers = {json.loads(line)["line"] for line in lines}
    assert len(numbers | {each["line"] for each in failed}) == len(lines) + len(failed)


@pytest.mark.parametrize("kind", ["weighted, labels", "majority, labels"])
def test_labels_are_counted_as_they_are_shown(
    shop: Shop, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks.store.single_labels._TASKS_COUNTED_AT_A_TIME", 7)
    job = make_weighted_job(shop, "completed", **KINDS[kind])
    labels = [each for line in export(shop, job) for each in json.loads(line)["labels"]]
    skills = sum(round(each.get("skill", 0) * ALL) for each in labels)
    for _ in range(2):
        with shop.database.long_read() as tx:
            assert results.count_labels(tx, job.job_no) == (len(labels), skills)
        archive_all(shop)


@pytest.mark.parametrize("kind", ["weighted", "majority"])
def test_disagreements_have_the_confidence_of_the_export(shop: Shop, kind: str) -> None:
    job = make_weighted_job(shop, "completed", **KINDS[kind])
    lines = {json.loads(line)["line"]: json.loads(line) for line in export(shop, job)}
    for _ in range(2):
        with shop.database.transaction() as tx:
            page = disagreements.list_page(tx, job.job_no, options=3, limit=100)
        assert page is not None
        settled = [each for each in page.found if each.confidence is not None]
        assert len(settled) > 20
        for each in settled:
            assert each.confidence == lines[each.line]["confidence"]
        archive_all(shop)


@pytest.mark.parametrize("kind", KINDS)
def test_parquet_has_the_rows_of_the_export(shop: Shop, kind: str) -> None:
    job = make_weighted_job(shop, "completed", **KINDS[kind])
    sink = pa.BufferOutputStream()
    with shop.database.long_read() as tx:
        parquet.write(sink, results.read(tx, job.job_no), compression=Compression.ZSTD)
    rows = pq.read_table(pa.BufferReader(sink.getvalue())).to_pylist()
    lines = [json.loads(line) for line in export(shop, job)]
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        row["votes"] = dict(row["votes"])
        assert row.pop("text") is None
        assert row.pop("gold") is line.pop("gold", False)
        assert row == _parsed(line)


def _parsed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _parsed(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_parsed(v) for v in value]
    if isinstance(value, str) and value.endswith("Z") and value[4:5] == "-":
        return datetime.fromisoformat(value)
    return value


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_result_is_the_line_of_the_export(shop: Shop, kind: str) -> None:
    job = make_weighted_job(shop, "cancelled", tasks=100, **KINDS[kind])
    lines = [shown(line) for line in export(shop, job)]
    for line in lines:
        line.pop("labels", None)
    for _ in range(2):
        found = [
            shop.do(tasks.get, line["task_id"], customer_id=shop.customer_id) for line in lines
        ]
        texts = [msgspec.json.encode(task_views.result(task)) for task in found]
        assert [_parsed(shown(text)) for text in texts] == _parsed(lines)
        views = [json.loads(msgspec.json.encode(task_views.view(task))) for task in found]
        assert [each.get("gold", False) for each in views] == [
            line.get("gold", False) for line in lines
        ]
        assert {each["status"] for each in views} == {"settled"}
        archive_all(shop)


def test_gold_counts_into_no_figure_of_consensus(shop: Shop) -> None:
    job = make_weighted_job(shop, "processing")
    found = view(shop, job)
    assert found.open.tasks == shop.value(
        "select count(*) from tallies where outcome is null and gold is null and annotators <> '{}'"
    )
    counted = shop.run("select votes from tallies where gold is null")
    assert found.labels + found.open.labels == sum(sum(row["votes"]) for row in counted)
    assert (
        sum(each.labels + each.open for each in found.options) == found.labels + found.open.labels
    )
    ended = shop.do(label_columns.read_ended, job.job_no, labels_max=10**6).labels
    gold = {row["task_no"] for row in shop.run("select task_no from gold_tasks")}
    assert not gold & set(ended["task_no"])
    known = {
        row["annotator_id"]: row
        for row in shop.run(
            """
            select annotator_id, gold_seen, gold_right, earlier_gold_seen, excluded_at,
                   skill(true, gold_right + earlier_gold_right, gold_seen + earlier_gold_seen, 0, 0)
            from job_annotators join annotators using (annotator_no)
            """
        )
    }
    assert sum(row["gold_seen"] for row in known.values()) > 20
    for each in found.annotators:
        row = known[each.annotator_id]
        assert (each.gold_seen, each.gold_right) == (row["gold_seen"], row["gold_right"])
        assert each.gold_accuracy == round(row["gold_right"] / row["gold_seen"], 4)
        assert (each.earlier_gold_seen, each.excluded_at) == (row["earlier_gold_seen"], None)
        assert each.skill == row["skill"] / ALL


@pytest.mark.parametrize(
    "changes",
    [{}, {"target_confidence": None, "labels_max": None, "consensus_threshold": 3}],
    ids=["weighted", "majority"],
)
def test_gold_says_how_right_results_are_archived_or_not(
    shop: Shop, changes: dict[str, Any]
) -> None:
    job = make_weighted_job(shop, "completed", **changes)
    labels: dict[int, list[dict[str, Any]]] = {}
    truths = {row["task_no"]: row["option"] for row in shop.run("select * from gold_tasks")}
    for row in shop.run(
        "select l.* from labels l join tallies y using (job_no, task_no) "
        "order by array_position(y.annotators, l.annotator_no)"
    ):
        if row["task_no"] in truths:
            labels.setdefault(row["task_no"], []).append(row)
    rule = Majority(threshold=3) if changes else Weighted(target=TARGET, labels_min=2, labels_max=5)
    given = {
        number: [SkilledLabel(row["option"], row["skill"] or 0) for row in rows]
        for number, rows in labels.items()
    }
    expected = estimate(rule, 3, ((truths[number], each) for number, each in given.items()))
    assert 0 < expected.right < expected.seen < len(truths)
    for _ in range(2):
        found = view(shop, job).accuracy
        assert found
        assert (found.right, found.tasks) == (expected.right, expected.seen)
        assert (found.low, found.high) == (round(expected.low, 4), round(expected.high, 4))
        assert found.accuracy == round(expected.right / expected.seen, 4)
        archive_all(shop)


def test_means_and_bins_of_quality_are_of_posteriors(shop: Shop) -> None:
    job = make_weighted_job(shop, "completed")
    found = view(shop, job)
    shares = [line["confidence"] for line in compose(shop, job) if "gold" not in line]
    assert found.mean_confidence == round(sum(shares) / len(shares), 4)
    assert found.confidence[-1].tasks == sum(share > 0.9 for share in shares)


def test_a_weighted_task_without_consensus_says_how_likely_the_best_was(shop: Shop) -> None:
    job = make_weighted_job(shop, "completed")
    messages = [each["message"] for each in errors(shop, job) if each["code"] == "no_consensus"]
    assert messages
    for message in messages:
        assert message.startswith("No option won with 5 labels: ")
        assert ". The likeliest one has a confidence of 0." in message
        assert message.endswith(", and 0.9 was asked for.")


def test_a_job_whose_open_tasks_are_all_gold_wants_no_annotators(shop: Shop) -> None:
    job = shop.processing(make_chunk(4))
    assert shop.do(waits.find_waits, [job])
    make_gold(shop, job, dict.fromkeys(range(4), 1))
    assert not shop.do(waits.find_waits, [shop.job(job)])


def test_a_weighted_job_wants_as_many_annotators_as_its_tasks_need_at_least(shop: Shop) -> None:
    job = shop.processing(make_chunk(1), **WEIGHTED)
    (found,) = shop.do(waits.find_waits, [job]).values()
    assert found.annotators == 2
    shop.answer(shop.annotator(), "cat")
    (found,) = shop.do(waits.find_waits, [job]).values()
    assert found.annotators == 1


def test_gold_takes_no_labels_once_the_other_tasks_have_ended(shop: Shop) -> None:
    job = shop.processing(make_chunk(2), consensus_threshold=1, delivery=DELIVERY)
    make_gold(shop, job, {0: 1})
    first = shop.annotator()
    shop.claim(first)
    assert shop.label(first, (job.task_id(1), "cat")) == ["settled"]
    settled = shop.job(job)
    assert (settled.status, settled.settled_at is not None) == ("processing", True)
    before = export(shop, settled)
    assert shop.label(first, (job.task_id(0), "cat")) == ["already_settled"]
    assert export(shop, settled) == before


@pytest.mark.parametrize("options", [2, 3, 100])
def test_confidence_is_that_of_the_reference_to_the_ten_thousandth(
    shop: Shop, options: int
) -> None:
    rng = random.Random(options)
    rows = [
        [rng.choice([0, 1, rng.randrange(10**7), 2 * 10**8]) for _ in range(options)]
        for _ in range(500)
    ] + [[0] * options]
    outcomes = [rng.randrange(options + 1) for _ in rows]
    frame = pl.DataFrame(
        {
            "task_no": [n for n, _ in enumerate(rows) for _ in range(options)],
            "outcome": [outcome for outcome in outcomes for _ in range(options)],
            "option": [*range(1, options + 1)] * len(rows),
            "score": [score for row in rows for score in row],
        }
    )
    expected = [
        consensus.confidence_of(row, outcome) if outcome else consensus.confidence(row)
        for row, outcome in zip(rows, outcomes, strict=True)
    ]
    assert confidences(frame, options)["confidence"].to_list() == expected
    found = confidences(frame.filter(pl.col("score") > 0), options)
    assert dict(found.iter_rows()) == {n: expected[n] for n in found["task_no"]}
    query = """
        select confidence_of(scores, coalesce(nullif(%s, 0)::smallint, likeliest(scores)))
        from (select %s::integer[] as scores) s
    """
    for row, outcome, share in zip(rows, outcomes, expected, strict=True):
        if rng.random() < 0.1:
            assert shop.value(query, outcome, row) == share


@pytest.mark.parametrize("labels", [0, 2])
def test_the_confidence_of_a_reviewed_task_is_that_of_the_decided_option(
    shop: Shop, labels: int
) -> None:
    job = shop.processing(make_chunk(1), **WEIGHTED | {"target_confidence": 9999})
    for annotator in shop.annotators(max(labels, 1)):
        (task,) = shop.claim(annotator)
        if labels:
            shop.label(annotator, (task.task_id, "cat"))
        else:
            shop.enter(annotator, Skip(task.task_id, SkipReason.UNCLEAR))
    shop.run("update tallies set outcome = 2, labelled_at = now()")
    shop.run("update chunks set settled = 1")
    shop.run("update jobs set status = 'completed', settled_at = now(), completed_at = now()")
    weight = consensus.weight(8000, 3)
    share = consensus.confidence_of([labels * weight, 0, 0], 2)
    (line,) = map(json.loads, export(shop, job))
    assert (line["consensus_label"], line["confidence"]) == ("dog", share / ALL)
    found = view(shop, job)
    assert (found.mean_confidence, found.tasks_settled) == (share / ALL, 1)
    task_found = shop.do(tasks.get, line["task_id"], customer_id=shop.customer_id)
    assert task_views.result(task_found).confidence == share / ALL
