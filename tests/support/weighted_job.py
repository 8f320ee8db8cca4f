"""Jobs that weigh labels, have gold, and show single labels; and their results, task by task."""

import json
import random
from collections import defaultdict
from typing import Any

from blocks.domain import consensus
from blocks.domain.consensus import ALL
from blocks.domain.ids import task_id
from blocks.domain.model import SkipReason
from blocks.store import jobs
from blocks.store.jobs import Job
from blocks.store.label_changes import Entry, Skip
from blocks.store.labelling import Label
from tests.support.store_shop import OPTIONS, Shop, make_chunk

TARGET, LABELS_MIN, LABELS_MAX = 9000, 2, 5
WEIGHTED: dict[str, Any] = {
    "target_confidence": TARGET, "consensus_threshold": LABELS_MIN, "labels_max": LABELS_MAX
}  # fmt: skip
# Right answers of so many gold tasks: skills from chance on.
_SHOWN = [(0, 0), (3, 10), (7, 10), (19, 20), (200, 200)]


def make_gold(shop: Shop, job: Job, answers: dict[int, int]) -> None:
    """Make tasks gold, by their numbers, as if their lines said so; options are 1-based."""
    for number, option in answers.items():
        shop.run("insert into gold_tasks values (%s, %s, %s)", job.job_no, number, option)
        shop.run(
            "update chunks set settled = settled + 1 where (job_no, chunk_no) = (%s, chunk_of(%s))",
            job.job_no, number,
        )  # fmt: skip
    shop.run("update jobs set has_gold = true where job_no = %s", job.job_no)


def make_weighted_job(
    shop: Shop, end: str, *, tasks: int = 300, seed: int = 1, **changes: Any
) -> Job:
    """A job of two chunks, with gold on every seventh task, whose labels are of annotators of any skill.

    `end` is completed, cancelled or processing; with that, and with cancelled, some tasks are open.
    """
    rng = random.Random(seed)
    half = tasks // 2
    chunks = make_chunk(half, bad=1), make_chunk(tasks - half, start=10**6)
    job = shop.processing(*chunks, **WEIGHTED | {"skips_max": 1} | changes)
    numbers = [task["task_no"] for task in shop.tasks()]
    make_gold(shop, job, {number: rng.randrange(3) + 1 for number in numbers[::7]})
    annotators = shop.annotators(len(_SHOWN) * (3 if end == "completed" else 1))
    for nth, annotator in enumerate(annotators):
        right, seen = _SHOWN[nth % len(_SHOWN)]
        shop.run(
            "insert into job_annotators (job_no, annotator_no, earlier_gold_right, earlier_gold_seen) "
            "values (%s, %s, %s, %s)",
            job.job_no, annotator, right, seen,
        )  # fmt: skip
    for annotator in annotators:
        _label(shop, job, annotator, rng, is_to_the_end=end == "completed")
    if end == "cancelled":
        shop.do(jobs.cancel, job.job_no)
    found = shop.job(job)
    assert found.status == end
    return found


def _label(
    shop: Shop, job: Job, annotator: int, rng: random.Random, *, is_to_the_end: bool
) -> None:
    limit = 100 if is_to_the_end else len(shop.tasks()) // 4
    while claimed := shop.claim(annotator, min(limit, 100), job_id=job.job_id):
        entries: list[Entry] = [
            Skip(task.task_id, SkipReason.BROKEN)
            if rng.random() < 0.01
            else Label(task.task_id, rng.choices(OPTIONS, [6, 2, 1])[0])
            for task in claimed
        ]
        shop.enter(annotator, *entries)
        if not is_to_the_end and rng.random() < 0.8:
            return


def compose(shop: Shop, job: Job) -> list[dict[str, Any]]:
    """The lines of the export of a job that is not archived, one after the other."""
    found = shop.run(
        """
        select t.task_no, y.outcome, y.votes, g.option as gold, y.labelled_at, c.created_at, j.*,
               rfc3339(coalesce(y.labelled_at, c.created_at)) as ended, rfc3339(c.created_at) as begun
        from jobs j join chunks c using (job_no)
        cross join lateral (select * from generate_series(task_no(c.chunk_no, 0), task_no(c.chunk_no, c.tasks) - 1) t (task_no)) t
        left join tallies y on (y.job_no, y.task_no) = (j.job_no, t.task_no)
        left join gold_tasks g on (g.job_no, g.task_no) = (j.job_no, t.task_no)
        where j.job_no = %s and (y.outcome > 0 or g.option is not null) order by t.task_no
        """,
        job.job_no,
    )
    labels = shop.run(
        """
        select l.task_no, a.annotator_id, l.option, l.skill, rfc3339(l.created_at) as at
        from labels l join annotators a using (annotator_no)
        join tallies y on (y.job_no, y.task_no) = (l.job_no, l.task_no)
        where l.job_no = %s order by array_position(y.annotators, l.annotator_no)
        """,
        job.job_no,
    )
    by_task = defaultdict(list)
    for label in labels:
        by_task[label["task_no"]].append(label)
    return [_line(row, by_task[row["task_no"]]) for row in found]


def _line(row: dict[str, Any], labels: list[dict[str, Any]]) -> dict[str, Any]:
    options, winner = row["options"], row["gold"] or row["outcome"]
    votes = [sum(label["option"] == n + 1 for label in labels) for n in range(len(options))]
    is_weighted = row["target_confidence"] is not None
    confidence = 1.0 if row["gold"] else votes[winner - 1] / (len(labels) or 1)
    if is_weighted and not row["gold"]:
        scores = [0] * len(options)
        for label in labels:
            scores[label["option"] - 1] += consensus.weight(label["skill"], len(options))
        confidence = consensus.confidence(scores) / ALL
    line = {
        "task_id": task_id(row["job_id"], row["task_key"], row["task_no"]),
        "consensus_label": options[winner - 1],
        "confidence": confidence,
        "worker_count": len(labels),
        "agreement_count": votes[winner - 1],
        "votes": dict(zip(options, votes, strict=True)),
        "settled_at": row["begun"] if row["gold"] else row["ended"],
    }
    if row["gold"]:
        line["gold"] = True
    if row["include_labels"]:
        line["labels"] = [
            {"annotator": label["annotator_id"], "label": options[label["option"] - 1]}
            | ({"skill": label["skill"] / ALL} if is_weighted else {})
            | {"at": label["at"]}
            for label in labels
        ]
    return line


def shown(line: bytes) -> dict[str, Any]:
    """What `compose` says of a line, of the line."""
    alike = "line", "data_url", "metadata", "status", "created_at"
    return {name: value for name, value in json.loads(line).items() if name not in alike}
