"""The books of annotation: what has to add up in the tables of a job, at any moment."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from tests.support.consensus import decide, exhausted
from tests.support.store_shop import Shop


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
        offset = row["byte_offset"]
        votes.setdefault(offset, [0] * len(job.options))[row["option"] - 1] += 1
        annotators.setdefault(offset, set()).add(row["annotator_no"])
    tallies = {
        row["byte_offset"]: row
        for row in shop.run("select * from tallies where job_no = %s", job.job_no)
    }
    assert tallies.keys() == votes.keys()
    for offset, row in tallies.items():
        assert row["votes"] == votes[offset]
        assert len(row["annotators"]) == sum(votes[offset])
        assert set(row["annotators"]) == annotators[offset]
        assert row["outcome"] == outcome(job, votes[offset])
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
            count(t) as task_rows, count(y) filter (where y.outcome > 0) as settled_rows,
            count(y) filter (where y.outcome = 0) as failed_rows
        from chunks c left join tasks t using (job_no, chunk_no)
        left join tallies y using (job_no, byte_offset)
        where c.job_no = %s group by c.job_no, c.chunk_no
    """
    for row in shop.run(query, job.job_no):
        for name in ("task", "settled", "failed"):
            assert row["tasks" if name == "task" else name] == row[f"{name}_rows"]


def check_places(shop: Shop, job: Job, tallies: dict[int, dict[str, Any]]) -> None:
    """Each open task has as many labels, holders, vacancies and lanes to come as it has places."""
    ended = {offset for offset, row in tallies.items() if row["outcome"] is not None}
    held: dict[int, list[int]] = {}
    for row in shop.run("select * from leases where job_no = %s", job.job_no):
        assert row["byte_offsets"], "a lease of nothing"
        assert row["byte_offsets"] == sorted(set(row["byte_offsets"]))
        for offset in row["byte_offsets"]:
            held.setdefault(offset, []).append(row["annotator_no"])
    vacant = Counter(
        row["byte_offset"]
        for row in shop.run("select byte_offset from vacancies where job_no = %s", job.job_no)
    )
    lanes = {
        row["chunk_no"]: row
        for row in shop.run("select * from lanes where job_no = %s", job.job_no)
    }
    for row in lanes.values():
        assert min(row["offsets"]) < row["ends_at"]
        mine = [number for number in row["annotators"] if number]
        assert len(mine) == len(set(mine)), "two lanes of one annotator"
    for row in shop.run("select * from tasks where job_no = %s", job.job_no):
        offset = row["byte_offset"]
        if offset in ended:
            continue
        lane = lanes.get(row["chunk_no"])
        to_come = sum(offset >= at for at in lane["offsets"]) if lane else 0
        labelled = tallies[offset]["annotators"] if offset in tallies else []
        holders = held.get(offset, [])
        assert len(holders) == len(set(holders))
        assert not set(holders) & set(labelled), "somebody holds what they have labelled"
        places = tallies[offset]["places"] if offset in tallies else job.consensus_threshold
        if len(labelled) >= job.consensus_threshold:
            places = max(places, len(labelled) + 1)
        assert len(labelled) + len(holders) + vacant[offset] + to_come == places
