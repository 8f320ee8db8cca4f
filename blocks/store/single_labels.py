"""Read single labels as they are shown beside results, thousands of tasks at a time."""

import polars as pl

from blocks.lines.result_lines import SINGLE_LABEL_COLUMNS
from blocks.store import archive, ballots, quality
from blocks.store.database import Transaction

_TASKS_COUNTED_AT_A_TIME = 16_384


def read(tx: Transaction, job_no: int, from_task: int, until_task: int) -> pl.DataFrame:
    """Return `SINGLE_LABEL_COLUMNS` of the tasks from `from_task` to before `until_task`.

    They come in the order of the tasks, and within a task as they were counted, wherever they are.

    Raises:
        ArchiveCorrupt: a page of archived labels is.
    """
    both = _read(tx, job_no, from_task, until_task)
    ids = quality.find_annotator_ids(tx, both["annotator_no"].unique())
    names = pl.DataFrame(
        {"annotator_no": list(ids), "annotator": list(ids.values())},
        schema={"annotator_no": pl.UInt32, "annotator": pl.String},
    )
    named = both.join(names, on="annotator_no", how="left", maintain_order="left")
    return (
        named.rename({"created_at": "at"})
        .sort("task_no", maintain_order=True)
        .select(*SINGLE_LABEL_COLUMNS)
    )


def count_settled(tx: Transaction, job_no: int, first: int, end: int) -> tuple[int, int]:
    """Return how many labels the settled tasks of a chunk have, and the sum of their skills.

    Its tasks are those from `first` to before `end`; gold tasks are settled.

    Raises:
        ArchiveCorrupt: a page of archived labels is.
    """
    gold = pl.Series(ballots.find_gold(tx, job_no, first, end), dtype=pl.Int64).implode()
    labels = skills = 0
    for start in range(first, end, _TASKS_COUNTED_AT_A_TIME):
        # Archived labels come by whole pages, each with the part in which it begins.
        some = _read(tx, job_no, start, min(start + _TASKS_COUNTED_AT_A_TIME, end))
        tx.commit()
        settled = some.filter((pl.col("outcome") > 0) | pl.col("task_no").is_in(gold))
        labels += len(settled)
        skills += int(settled["skill"].sum())
    return labels, skills


def _read(tx: Transaction, job_no: int, from_task: int, until_task: int) -> pl.DataFrame:
    """Return the labels as `archive.LABEL_COLUMNS`; those of a task together, as counted."""
    # In this order, so that those which move to the archive in between are found twice.
    labels = archive.read_unarchived(tx, job_no, from_task, until_task)
    archived = archive.read_labels(tx, job_no, from_task, until_task)
    moved = archived.join(labels, on="task_no", how="anti", maintain_order="left")
    return pl.concat([labels, moved]).filter(pl.col("option") > 0)
