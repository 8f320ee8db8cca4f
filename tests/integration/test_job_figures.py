"""What leads are told of a job, against what plain Python makes of the same labels, at any time."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from blocks.domain.model import SkipReason
from blocks.store import archive, disagreements, jobs, label_batches, quality
from blocks.store.disagreements import Filter, State
from blocks.store.quality import Outcomes, Quality, VoteCount
from tests.support.labelled_tasks import Task
from tests.support.random_labelling import RandomLabelling
from tests.support.store_shop import OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration

Row = dict[str, Any]


@pytest.fixture(params=[1, 2, 3])
def labelled(request: pytest.FixtureRequest, shop: Shop) -> RandomLabelling:
    """A job on which annotators have skipped, replaced, withdrawn; a part of it is open."""
    found = RandomLabelling(shop, request.param, stop_early=request.param == 3)
    found.work(60)
    assert {state_of(task) for task in found.tasks if task.labels} == set(State)
    return found


def annotator_ids(shop: Shop) -> dict[int, str]:
    rows = shop.run("select annotator_no, annotator_id from annotators")
    return {row["annotator_no"]: row["annotator_id"] for row in rows}


def votes_of(tasks: list[Task], annotator: int | None = None) -> list[VoteCount]:
    """The votes by outcome and option, of all annotators or of one."""
    labels = Counter(
        (task.outcome, OPTIONS.index(option) + 1)
        for task in tasks
        for who, option in task.labels.items()
        if annotator in (None, who)
    )
    ordered = sorted(labels, key=lambda key: (key[0] is None, key[0] or 0, key[1]))
    return [VoteCount(*key, labels[key]) for key in ordered]


def outcomes_of(tasks: list[Task]) -> list[Outcomes]:
    """How the tasks ended, those that are open and have no labels left out."""
    counts = Counter(
        (task.outcome, len(task.labels), agreed(task))
        for task in tasks
        if task.labels or task.has_ended
    )
    ordered = sorted(counts, key=lambda key: (key[0] is None, key[0] or 0, *key[1:]))
    return [Outcomes(*key, counts[key]) for key in ordered]


def agreed(task: Task) -> int:
    return task.votes[task.outcome - 1] if task.outcome is not None and task.outcome > 0 else 0


def people_of(work: RandomLabelling) -> list[Row]:
    """What each annotator has done, without the times."""
    found = []
    for number in work.annotators:
        theirs = [task for task in work.tasks if number in task.labels]
        settled = [task for task in theirs if (task.outcome or 0) > 0]
        changes = [new for _, who, _, new in work.books.changes if who == number]
        skips = Counter(task.skips[number] for task in work.tasks if number in task.skips)
        found.append(
            {
                "annotator_id": annotator_ids(work.shop)[number],
                "labels": len(settled),
                "agreed": sum(OPTIONS[(t.outcome or 0) - 1] == t.labels[number] for t in settled),
                "failed": sum((task.outcome or 0) <= 0 and task.has_ended for task in theirs),
                "open": sum(not task.has_ended for task in theirs),
                "skips": dict(skips),
                "replaced": sum(new is not None for new in changes),
                "withdrawn": sum(new is None for new in changes),
            }
        )
    return sorted(found, key=lambda row: row["annotator_id"])


def measured(work: RandomLabelling, confusion_of: int | None = None) -> Quality:
    one = None if confusion_of is None else annotator_ids(work.shop)[confusion_of]
    found: Quality = work.shop.do(quality.measure, work.job.job_no, confusion_of=one)
    return found


def check_quality(work: RandomLabelling) -> None:
    found = measured(work)
    votes = votes_of(list(work.tasks))
    assert list(found.votes) == votes
    assert list(found.outcomes) == outcomes_of(list(work.tasks))
    assert list(found.confusion) == [each for each in votes if (each.outcome or 0) > 0]
    people = [
        {field: getattr(each, field) for field in each.__struct_fields__}
        for each in found.annotators
    ]
    assert all(each.pop("seconds") is not None for each in people)
    assert all(each.pop("known") is None for each in people)  # no gold, and labels are not weighed
    assert people == people_of(work)
    one = work.annotators[0]
    assert list(measured(work, one).confusion) == [
        each for each in votes_of(list(work.tasks), one) if (each.outcome or 0) > 0
    ]


def pages(
    work: RandomLabelling, limit: int, wanted: Filter
) -> Iterator[list[disagreements.Disagreement]]:
    cursor: str | None = None
    while True:
        page = work.shop.do(
            disagreements.list_page,
            work.job.job_no, options=len(OPTIONS), limit=limit, after=cursor, wanted=wanted,
        )  # fmt: skip
        assert len(page.found) <= limit
        yield page.found
        cursor = page.cursor
        if cursor is None:
            return


def state_of(task: Task) -> State:
    if task.outcome is None:
        return State.OPEN
    return State.SETTLED if task.outcome > 0 else State.FAILED


def expected(work: RandomLabelling, wanted: Filter) -> list[Row]:
    ids = annotator_ids(work.shop)
    return [
        {
            "task_no": task.task_no,
            "outcome": task.outcome,
            "votes": task.votes,
            "labels": {ids[who]: OPTIONS.index(option) + 1 for who, option in task.labels.items()},
        }
        for task in sorted(work.tasks, key=lambda task: task.task_no)
        if len(set(task.labels.values())) > 1
        and (wanted.states is None or state_of(task) in wanted.states)
        and (wanted.option is None or OPTIONS[wanted.option - 1] in task.labels.values())
        and (
            wanted.annotator_id is None or wanted.annotator_id in {ids[who] for who in task.labels}
        )
    ]


def check_disagreements(work: RandomLabelling, limit: int, wanted: Filter) -> None:
    found = [each for page in pages(work, limit, wanted) for each in page]
    assert [
        {
            "task_no": each.task_no,
            "outcome": each.outcome,
            "votes": list(each.votes),
            "labels": {vote.annotator_id: vote.option for vote in each.labels},
        }
        for each in found
    ] == expected(work, wanted)
    lines = {row["task_no"]: row for row in work.shop.tasks()}
    for each in found:
        assert each.content.data_url == lines[each.task_no]["data_url"]
        times = [vote.created_at for vote in each.labels]
        assert times == sorted(times)
        chunk, ordinal = divmod(each.task_no, 2**32)
        assert each.line == chunk * work.tasks_a_chunk + ordinal + 1


def check_all(work: RandomLabelling) -> None:
    check_quality(work)
    someone = annotator_ids(work.shop)[work.annotators[-1]]
    for limit, wanted in (
        (7, Filter()),
        (100, Filter()),
        (3, Filter(states=[State.FAILED])),
        (50, Filter(states=[State.OPEN, State.SETTLED], option=3)),
        (50, Filter(annotator_id=someone)),
        (50, Filter(states=[])),
        (50, Filter(annotator_id="ann_nobody")),
    ):
        check_disagreements(work, limit, wanted)


def test_the_figures_are_those_of_the_labels_before_during_and_after_archiving(
    labelled: RandomLabelling, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = labelled.shop
    check_all(labelled)
    shop.do(jobs.cancel, labelled.job.job_no)
    monkeypatch.setattr(archive, "_PAGES_A_STEP", 1)
    steps = 0
    while shop.do(archive.archive_some, after_s=0):
        steps += 1
        check_all(labelled)
    assert steps == 4
    assert shop.value("select count(*) from labels") == 0


@pytest.mark.parametrize("tasks_max, pages_max", [(1, 1), (50, 1), (7, 2)])
def test_pages_of_disagreements_are_whole_however_little_each_looks_at(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tasks_max: int, pages_max: int
) -> None:
    monkeypatch.setattr(disagreements, "_TASKS_MAX", tasks_max)
    monkeypatch.setattr(disagreements, "_ARCHIVED_PAGES_MAX", pages_max)
    monkeypatch.setattr(archive, "_PAGES_A_STEP", 1)
    work = RandomLabelling(shop, 4)
    work.work(20)
    shop.do(jobs.cancel, work.job.job_no)
    check_disagreements(work, 20, Filter())
    for _ in range(2):
        assert shop.do(archive.archive_some, after_s=0)
        check_disagreements(work, 20, Filter())


def test_gold_is_no_disagreement(shop: Shop) -> None:
    job = shop.processing(make_chunk(6, gold={2: 1}), consensus_threshold=4)
    for annotator, option in zip(shop.annotators(2), OPTIONS, strict=False):
        while shop.answer(annotator, option):
            pass
    assert shop.value("select count(*) from tallies where gold is not null") == 1

    def numbers() -> list[int]:
        page = shop.do(disagreements.list_page, job.job_no, options=len(OPTIONS), limit=100)
        return [each.task_no for each in page.found]

    assert numbers() == [0, 1, 3, 4, 5]
    shop.do(jobs.cancel, job.job_no)
    while shop.do(archive.archive_some, after_s=0):
        pass
    assert shop.value("select count(*) from tallies") == 0
    assert numbers() == [0, 1, 3, 4, 5]


def times_of(shop: Shop) -> list[Row]:
    """The labels of each request, and the seconds of each."""
    rows = shop.run("select * from label_batches order by annotator_no, created_at")
    found = []
    for earlier, row in zip([None, *rows], rows, strict=False):
        seconds = row["held_s"]
        if earlier and earlier["annotator_no"] == row["annotator_no"]:
            since = (row["created_at"] - earlier["created_at"]).total_seconds()
            seconds = None if seconds is None else min(seconds, since)
        if seconds is not None:
            labels = len(row["task_nos"])
            found.append({**row, "labels": labels, "seconds": seconds / labels})
    return found


def test_folding_changes_no_time(shop: Shop) -> None:
    work = RandomLabelling(shop, 5)
    work.work(40)
    # As if the requests had come minutes apart, some of them after a pause before their claim.
    shop.run("update label_batches set held_s = held_s + mod(batch_no * 97, 61) * 3")
    shop.run("update label_batches set created_at = created_at + batch_no * interval '90 seconds'")
    before = measured(work)
    rows = times_of(shop)
    for number in [None, *work.annotators]:
        times = sorted(
            row["seconds"]
            for row in rows
            if number in (None, row["annotator_no"])
            for _ in range(row["labels"])
        )
        found = (
            before.seconds
            if number is None
            else next(
                each.seconds
                for each in before.annotators
                if each.annotator_id == annotator_ids(shop)[number]
            )
        )
        assert found == pytest.approx(max(times[(len(times) - 1) // 2], 0.001), rel=0.03)
    for number in work.annotators:
        bounds = {"annotator_no": number, "kept": 3, "limit": 1000}
        shop.do(lambda tx, bounds=bounds: tx.execute(label_batches._SQL["fold"], bounds))
    assert shop.value("select count(*) from label_batches") <= 3 * len(work.annotators)
    assert shop.value("select sum(labels) from label_times") > 100
    after = measured(work)
    assert (after.seconds, after.annotators) == (before.seconds, before.annotators)


def test_every_reason_to_skip_is_counted(labelled: RandomLabelling) -> None:
    counted = Counter(reason for each in measured(labelled).annotators for reason in each.skips)
    assert counted.keys() == set(SkipReason)
