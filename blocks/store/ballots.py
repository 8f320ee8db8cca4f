"""Read the results and votes of ended tasks, thousands at a time, wherever they are."""

import struct
from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from blocks.lines import columns
from blocks.store import archive, arrays
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("ballots")

BALLOT_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "task_no": pl.Int64,
    "outcome": pl.Int16,
    "votes": pl.Binary,
    "labelled_at": columns.TIME,
}
"""A row is a task that has ended: `outcome` is the option that won, 1-based, or 0 or less by why it
failed; `unpack_votes` reads `votes`."""

_LENGTH_AND_VOTES = struct.Struct(">ih")


def read_ended(
    tx: Transaction, job_no: int, from_task: int, until_task: int, *, options: int
) -> pl.DataFrame:
    """Return `BALLOT_COLUMNS` of the ended tasks from `from_task` to before `until_task`.

    They come in the order of their numbers. `options` is how many the job has.

    Raises:
        ArchiveCorrupt: a page of archived labels is.
    """
    values = {"job_no": job_no, "from_task": from_task, "until_task": until_task}
    answer = tx.execute(_SQL["read_ended"], values, binary=True).pgresult
    assert answer is not None  # a statement with rows
    task_nos, outcomes, votes, labelled_at = (answer.get_value(0, n) for n in range(4))
    # Labels move to the archive in one commit. It is read after the tables, so none is missed; those
    # that move in between are found twice.
    labels = archive.read_labels(tx, job_no, from_task, until_task)
    archived = _count_votes(labels, options)
    if task_nos is None or outcomes is None or votes is None or labelled_at is None:
        return archived
    numbers = arrays.bigints(task_nos)
    found = pl.DataFrame(
        {
            "task_no": numbers,
            "outcome": arrays.smallints(outcomes),
            "votes": arrays.rows_of_smallints(votes, len(numbers)),
            "labelled_at": arrays.times(labelled_at),
        }
    )
    if archived.is_empty():
        return found
    return pl.concat([found, archived]).unique("task_no", keep="first").sort("task_no")


def unpack_votes(packed: bytes) -> tuple[int, ...]:
    """Return the number of votes for each option."""
    return tuple(votes for _, votes in _LENGTH_AND_VOTES.iter_unpack(packed))


def _pack_votes(votes: Sequence[int]) -> bytes:
    return b"".join(_LENGTH_AND_VOTES.pack(2, each) for each in votes)


def _count_votes(labels: pl.DataFrame, options: int) -> pl.DataFrame:
    """Return the ballots of ended tasks out of their labels, in the order of the tasks."""
    ended = labels.filter(pl.col("outcome").is_not_null())
    tasks = ended.group_by("task_no", maintain_order=True).agg(
        pl.col("outcome").first(),
        pl.col("created_at").last().alias("labelled_at"),
        pl.len().alias("labels"),
    )
    # The options of the labels of a task, in order, are bytes that stand for its votes.
    options_said = columns.values_of(ended.sort("task_no", "option")["option"])
    said = columns.of_parts(pa.large_binary(), tasks["labels"], options_said)
    kinds = said.unique()
    packed = [
        _pack_votes([option in kind and kind.count(option) for option in range(1, options + 1)])
        for kind in kinds
    ]
    return tasks.with_columns(
        votes=said.replace_strict(kinds, pl.Series(packed, dtype=pl.Binary), return_dtype=pl.Binary)
    ).select(*BALLOT_COLUMNS)
