"""The books of annotation: what has to add up in the tables of a job, at any moment."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from tests.support.consensus import decide, exhausted
from tests.support.store_shop import Shop
from tests.support.task_rows import list_tasks


class Job(Protocol):
    """What has tasks: a job, or what inline tasks hang on."""

    @property
    def job_no(self) -> int: ...
    @property
    def options(self) -> list[str]: ...
    @property
    def consensus_threshold(self) -> int: ...
    @property
    def stop_early(self) -> bool: ...


def check_books(shop: Shop, job: Job) -> None:
    """Everything that is counted or derived equals what the labels say."""
    votes: dict[int, list[int]] = {}
    annotators: dict[int, set[int]] = {}
    for row in shop.run("select * from labels where job_no = %s", job.job_no):
        number = row["task_no"]
        votes.setdefault(number, [0] * len(job.options))[row["option"] - 1] += 1
        annotators.setdefault(number, set()).add(row["annotator_no"])
    tallies = {
        row["task_no"]: row
        for row in shop.run("select * from tallies where job_no = %s", job.job_no)
    }
    skips: dict[int, dict[int, int]] = {}
    for row in shop.run("select * from skips where job_no = %s", job.job_no):
        skips.setdefault(row["task_no"], {})[row["annotator_no"]] = row["reason"]
    skips_max = shop.value("select skips_max from jobs where job_no = %s", job.job_no)
    assert tallies.keys() >= votes.keys() | skips.keys()
    for number, row in tallies.items():
        said = votes.get(number, [0] * len(job.options))
        assert row["votes"] == said
        assert len(row["annotators"]) == sum(said)
        assert set(row["annotators"]) == annotators.get(number, set())
        skipped = skips.get(number, {})
        assert row["skippers"] != []
        assert sorted(row["skippers"] or ()) == sorted(skipped)
        counted = Counter(why for who, why in skipped.items() if who not in row["annotators"])
        too_often = [-why for why, count in counted.items() if count >= skips_max]
        assert row["outcome"] == (too_often[0] if too_often else outcome(job, said))
    check_counters(shop, job)
    status = shop.value("select status from jobs where job_no = %s", job.job_no)
    if status == "processing":
        check_places(shop, job, tallies)


def outcome(job: Job, votes: Sequence[int]) -> int | None:
    """What the rule in Python says of votes, as the table has it."""
    winner = decide(votes, job.consensus_threshold, stop_early=job.stop_early)
    if winner is None:
        return 0 if exhausted(sum(votes), job.consensus_threshold) else None
    return winner + 1


def check_counters(shop: Shop, job: Job) -> None:
    query = """
        select c.chunk_no, c.tasks, c.settled, c.failed,
            count(y) filter (where y.outcome > 0) as settled_rows,
            count(y) filter (where y.outcome <= 0) as failed_rows,
            (select coalesce(sum(p.tasks), 0) from pages p
             where p.job_no = c.job_no and chunk_of(p.first_task) = c.chunk_no) as tasks_rows
        from chunks c left join tallies y on y.job_no = c.job_no and chunk_of(y.task_no) = c.chunk_no
        where c.job_no = %s group by c.job_no, c.chunk_no
    """
    for row in shop.run(query, job.job_no):
        for name in ("tasks", "settled", "failed"):
            assert row[name] == row[f"{name}_rows"]


def check_places(shop: Shop, job: Job, tallies: dict[int, dict[str, Any]]) -> None:
    """Each open task has as many labels, holders, vacancies and lanes to come as it has places."""
    ended = {number for number, row in tallies.items() if row["outcome"] is not None}
    held: dict[int, list[int]] = {}
    for row in shop.run("select * from leases where job_no = %s", job.job_no):
        assert row["task_nos"], "a lease of nothing"
        assert row["task_nos"] == sorted(set(row["task_nos"]))
        for number in row["task_nos"]:
            held.setdefault(number, []).append(row["annotator_no"])
    vacant = Counter(
        row["task_no"]
        for row in shop.run("select task_no from vacancies where job_no = %s", job.job_no)
    )
    lanes = {
        row["chunk_no"]: row
        for row in shop.run("select * from lanes where job_no = %s", job.job_no)
    }
    query = "select chunk_no from open_chunks where job_no = %s"
    assert {row["chunk_no"] for row in shop.run(query, job.job_no)} == lanes.keys()
    for row in lanes.values():
        assert min(row["cursors"]) < row["ends_at"]
        mine = [number for number in row["annotators"] if number]
        assert len(mine) == len(set(mine)), "two lanes of one annotator"
    for row in list_tasks(shop.run, "job_no = %s", job.job_no):
        number = row["task_no"]
        if number in ended:
            continue
        lane = lanes.get(row["chunk_no"])
        to_come = sum(number >= at for at in lane["cursors"]) if lane else 0
        labelled = tallies[number]["annotators"] if number in tallies else []
        holders = held.get(number, [])
        assert len(holders) == len(set(holders))
        assert not set(holders) & set(labelled), "somebody holds what they have labelled"
        skippers = (tallies[number]["skippers"] or ()) if number in tallies else ()
        assert not set(holders) & set(skippers) - set(labelled), "somebody holds what they skipped"
        places = tallies[number]["places"] if number in tallies else job.consensus_threshold
        if len(labelled) >= job.consensus_threshold:
            places = max(places, len(labelled) + 1)
        assert len(labelled) + len(holders) + vacant[number] + to_come == places
