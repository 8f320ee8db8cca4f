"""The books of annotation: what has to add up in the tables of a job, at any moment."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from blocks.domain.consensus import majority_outcome, weight, weighted_outcome
from blocks.domain.model import UNDER_REVIEW
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
    skips = list_skips(shop, job)
    (rule,) = shop.run("select * from jobs where job_no = %s", job.job_no)
    skips_max, gold = rule["skips_max"], list_gold(shop, job)
    scores = list_scores(shop, job)
    revised = list_revised(shop, job)
    reviews = list_reviews(shop, job)
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
        assert row["gold"] == gold.get(number)
        if number in gold:
            assert (row["outcome"], row["scores"]) == (None, None)
            continue
        is_weighted = rule["target_confidence"] is not None
        found = scores.get(number, [0] * len(job.options)) if is_weighted else None
        assert row["scores"] == found
        expected = by_votes(job, said) if found is None else by_scores(rule, found, sum(said))
        if row["outcome"] is None and found and number in revised:
            expected = None  # a label was taken back, and the next one decides
        by_rule = too_often[0] if too_often else expected
        assert row["outcome"] in allowed_outcomes(reviews.get(number, ()), by_rule, expected)
    check_grades(shop, job, gold)
    check_counters(shop, job)
    status = shop.value("select status from jobs where job_no = %s", job.job_no)
    if status == "processing":
        check_places(shop, job, tallies, gold)


def list_skips(shop: Shop, job: Job) -> dict[int, dict[int, int]]:
    """The reasons for which annotators have skipped tasks."""
    skips: dict[int, dict[int, int]] = {}
    for row in shop.run("select * from skips where job_no = %s", job.job_no):
        skips.setdefault(row["task_no"], {})[row["annotator_no"]] = row["reason"]
    return skips


def by_votes(job: Job, votes: Sequence[int]) -> int | None:
    """What the rule in Python says of votes, as the table has it."""
    return majority_outcome(votes, job.consensus_threshold, stop_early=job.stop_early)


def by_scores(rule: Mapping[str, Any], scores: Sequence[int], labels: int) -> int | None:
    """What the rule in Python says of scores, as the table has it."""
    return weighted_outcome(
        scores,
        labels,
        labels_min=rule["consensus_threshold"],
        labels_max=rule["labels_max"],
        target=rule["target_confidence"],
    )


def list_gold(shop: Shop, job: Job) -> dict[int, int]:
    """The right options of tasks that have them."""
    rows = shop.run("select task_no, option from gold_tasks where job_no = %s", job.job_no)
    return {row["task_no"]: row["option"] for row in rows}


def list_scores(shop: Shop, job: Job) -> dict[int, list[int]]:
    """The scores of tasks by their labels and the skills that stand with them."""
    scores: dict[int, list[int]] = {}
    query = "select * from labels where job_no = %s and skill is not null"
    for row in shop.run(query, job.job_no):
        found = scores.setdefault(row["task_no"], [0] * len(job.options))
        found[row["option"] - 1] += weight(row["skill"], len(job.options))
    return scores


def list_revised(shop: Shop, job: Job) -> set[int]:
    """Tasks of which a label was taken back."""
    query = "select task_no from label_changes where job_no = %s"
    return {row["task_no"] for row in shop.run(query, job.job_no)}


def allowed_outcomes(
    found: Sequence[Mapping[str, Any]], by_rule: int | None, by_labels: int | None
) -> set[int | None]:
    """What the outcome of a task may be after these reviews, the last of which says most."""
    if not found:
        return {by_rule}
    last = found[-1]
    assert all(row["state"] in {"sent_back", "timed_out"} for row in found[:-1])
    match last["state"]:
        case "open" | "dropped":
            return {UNDER_REVIEW}
        case "sent_back":  # the next label or skip decides
            return {None, by_rule, by_labels}
        case "timed_out":
            return {last["proposed"], by_rule}
        case _:
            return {last["decision"]}


def list_reviews(shop: Shop, job: Job) -> dict[int, list[dict[str, Any]]]:
    """The reviews of tasks, in their order."""
    query = "select * from reviews where job_no = %s order by review_no"
    found: dict[int, list[dict[str, Any]]] = {}
    for row in shop.run(query, job.job_no):
        found.setdefault(row["task_no"], []).append(row)
    return found


def check_grades(shop: Shop, job: Job, gold: Mapping[int, int]) -> None:
    """What is known of annotators equals their labels of gold, set aside or not."""
    seen: Counter[int] = Counter()
    right: Counter[int] = Counter()
    for table in ("labels", "labels_set_aside"):
        for row in shop.run(f"select * from {table} where job_no = %s", job.job_no):
            if row["task_no"] in gold:
                seen[row["annotator_no"]] += 1
                right[row["annotator_no"]] += row["option"] == gold[row["task_no"]]
    for row in shop.run("select * from job_annotators where job_no = %s", job.job_no):
        number = row["annotator_no"]
        assert (row["gold_seen"], row["gold_right"]) == (seen.pop(number, 0), right[number])
    assert not seen


def check_counters(shop: Shop, job: Job) -> None:
    query = """
        select c.chunk_no, c.tasks, c.settled, c.failed,
            count(y) filter (where y.outcome > 0) + (
                select count(*) from gold_tasks g
                where g.job_no = c.job_no and chunk_of(g.task_no) = c.chunk_no
            ) as settled_rows,
            count(y) filter (where y.outcome <= 0 and y.outcome <> under_review()) as failed_rows,
            (select coalesce(sum(p.tasks), 0) from pages p
             where p.job_no = c.job_no and chunk_of(p.first_task) = c.chunk_no) as tasks_rows
        from chunks c left join tallies y on y.job_no = c.job_no and chunk_of(y.task_no) = c.chunk_no
        where c.job_no = %s group by c.job_no, c.chunk_no
    """
    for row in shop.run(query, job.job_no):
        for name in ("tasks", "settled", "failed"):
            assert row[name] == row[f"{name}_rows"]


def check_places(
    shop: Shop, job: Job, tallies: dict[int, dict[str, Any]], gold: Mapping[int, int]
) -> None:
    """Each open task has as many labels, holders, vacancies and lanes to come as it has places."""
    ended = {
        number
        for number, row in tallies.items()
        if row["outcome"] is not None and row["outcome"] != UNDER_REVIEW
    }
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
        if number in ended or number in gold:
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
        is_open = number not in tallies or tallies[number]["outcome"] is None
        if len(labelled) >= job.consensus_threshold and is_open:
            places = max(places, len(labelled) + 1)
        assert len(labelled) + len(holders) + vacant[number] + to_come == places
