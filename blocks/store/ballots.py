"""Read the results and votes of ended tasks, thousands at a time, wherever they are."""

import struct
from collections.abc import Sequence

import msgspec
import polars as pl
import pyarrow as pa

from blocks.domain.consensus import confidence
from blocks.lines import columns
from blocks.lines.posteriors import confidences, weights
from blocks.store import archive, arrays
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("ballots")

BALLOT_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "task_no": pl.Int64,
    "outcome": pl.Int16,
    "votes": pl.Binary,
    "labelled_at": columns.TIME,
    "confidence": pl.UInt16,
    "gold": pl.Boolean,
}
"""A row is a task that has ended: `outcome` is the option that won, 1-based, or 0 or less by why it
failed; `unpack_votes` reads `votes`; `confidence` is in ten-thousandths, and null where the majority
decides. The outcome of a gold task is the right option; it has no `labelled_at`, and no confidence."""

_LENGTH_AND_VOTES = struct.Struct(">ih")


class Rule(msgspec.Struct, frozen=True):
    """What has to be known of a job to read its ballots."""

    options: int
    """How many there are."""
    is_weighted: bool = False
    has_gold: bool = False


def read_ended(
    tx: Transaction, job_no: int, from_task: int, until_task: int, rule: Rule
) -> pl.DataFrame:
    """Return `BALLOT_COLUMNS` of the ended tasks from `from_task` to before `until_task`.

    They come in the order of their numbers.

    Raises:
        ArchiveCorrupt: a page of archived labels is.
    """
    values = {"job_no": job_no, "from_task": from_task, "until_task": until_task}
    found = _read_tallies(tx, values, rule)
    gold = _read_gold(tx, values, rule) if rule.has_gold else None
    # Labels move to the archive in one commit. It is read after the tables, so none is missed; those
    # that move in between are found twice.
    labels = archive.read_labels(tx, job_no, from_task, until_task)
    if not labels.is_empty():
        both = pl.concat([found, _of_labels(labels, rule)])
        found = both.unique("task_no", keep="first").sort("task_no")
        gold = None if gold is None else _with_archived_votes(gold, labels, rule)
    return found if gold is None else pl.concat([found, gold]).sort("task_no")


def unpack_votes(packed: bytes) -> tuple[int, ...]:
    """Return the number of votes for each option."""
    return tuple(votes for _, votes in _LENGTH_AND_VOTES.iter_unpack(packed))


def find_gold(tx: Transaction, job_no: int, from_task: int, until_task: int) -> list[int]:
    """Return the numbers of the gold tasks from `from_task` to before `until_task`, in their order."""
    values = {"job_no": job_no, "from_task": from_task, "until_task": until_task}
    return [row["task_no"] for row in tx.execute(_SQL["find_gold"], values).fetchall()]


def _read_tallies(tx: Transaction, values: dict[str, int], rule: Rule) -> pl.DataFrame:
    answer = tx.execute(_SQL["read_ended"], values, binary=True).pgresult
    assert answer is not None  # a statement with rows
    task_nos, outcomes, votes, labelled_at, scores = (answer.get_value(0, n) for n in range(5))
    if task_nos is None or outcomes is None or votes is None or labelled_at is None:
        return pl.DataFrame(schema=BALLOT_COLUMNS)
    numbers = arrays.bigints(task_nos)
    confidence = pl.Series([None], dtype=pl.UInt16).new_from_index(0, len(numbers))
    if scores is not None:
        each = arrays.elements_of_rows(scores).cast(pl.Int64)
        tasks = pl.DataFrame({"task_no": numbers, "outcome": arrays.smallints(outcomes)})
        options = pl.int_range(1, rule.options + 1, eager=True).alias("option")
        of_options = tasks.join(options.to_frame(), how="cross", maintain_order="left_right")
        confidence = confidences(of_options.with_columns(score=each), rule.options)["confidence"]
    return pl.DataFrame(
        {
            "task_no": numbers,
            "outcome": arrays.smallints(outcomes),
            "votes": arrays.rows_of_smallints(votes, len(numbers)),
            "labelled_at": arrays.times(labelled_at),
            "confidence": confidence,
        }
    ).with_columns(gold=False)


def _read_gold(tx: Transaction, values: dict[str, int], rule: Rule) -> pl.DataFrame:
    given = values | {"options": rule.options}
    answer = tx.execute(_SQL["read_gold"], given, binary=True).pgresult
    assert answer is not None  # a statement with rows
    task_nos, options, votes = (answer.get_value(0, n) for n in range(3))
    if task_nos is None or options is None or votes is None:
        return pl.DataFrame(schema=BALLOT_COLUMNS)
    numbers = arrays.bigints(task_nos)
    found = {
        "task_no": numbers,
        "outcome": arrays.smallints(options),
        "votes": arrays.rows_of_smallints(votes, len(numbers)),
        "gold": [True] * len(numbers),
    }
    return (
        pl.DataFrame(found)
        .with_columns(
            labelled_at=pl.lit(None, dtype=columns.TIME), confidence=pl.lit(None, dtype=pl.UInt16)
        )
        .select(*BALLOT_COLUMNS)
    )


def _with_archived_votes(gold: pl.DataFrame, labels: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """Return gold tasks with the votes of those whose labels are in the archive."""
    theirs = labels.join(gold, on="task_no", how="semi", maintain_order="left")
    archived = _of_tasks(theirs, rule).select("task_no", archived="votes")
    return gold.join(archived, on="task_no", how="left", maintain_order="left").select(
        pl.coalesce("archived", "votes").alias(name) if name == "votes" else name
        for name in BALLOT_COLUMNS
    )


def _of_labels(labels: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """Return the ballots of ended tasks out of their labels, in the order of the tasks."""
    ended = labels.filter(pl.col("outcome").is_not_null())
    tasks = _of_tasks(ended, rule).with_columns(confidence=pl.lit(None, dtype=pl.UInt16))
    if rule.is_weighted:
        found = confidences_of(ended, rule.options)
        tasks = tasks.drop("confidence").join(
            found, on="task_no", how="left", maintain_order="left"
        )
        # Without labels, as where a reviewer decided, all options are as likely.
        tasks = tasks.with_columns(pl.col("confidence").fill_null(confidence([0] * rule.options)))
    return tasks.with_columns(gold=False).select(*BALLOT_COLUMNS)


def confidences_of(labels: pl.DataFrame, options: int) -> pl.DataFrame:
    """Return the confidence of tasks, as `posteriors.confidences` does, by archived labels of them."""
    said = labels.filter(pl.col("option") > 0)
    weighed = said.with_columns(score=weights(said["skill"], options))
    of_options = weighed.group_by("task_no", "outcome", "option", maintain_order=True)
    return confidences(of_options.agg(pl.col("score").sum()), options)


def _of_tasks(labels: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """Return `task_no`, `outcome`, `labelled_at` and `votes` by labels, in the order of the tasks."""
    tasks = labels.group_by("task_no", maintain_order=True).agg(
        pl.col("outcome").first(),
        pl.col("created_at").last().alias("labelled_at"),
        pl.len().alias("labels"),
    )
    # The options of the labels of a task, in order, are bytes that stand for its votes.
    options_said = columns.values_of(labels.sort("task_no", "option")["option"])
    said = columns.of_parts(pa.large_binary(), tasks["labels"], options_said)
    kinds = said.unique()
    packed = [
        _pack_votes(
            [option in kind and kind.count(option) for option in range(1, rule.options + 1)]
        )
        for kind in kinds
    ]
    return tasks.with_columns(
        votes=said.replace_strict(kinds, pl.Series(packed, dtype=pl.Binary), return_dtype=pl.Binary)
    )


def _pack_votes(votes: Sequence[int]) -> bytes:
    return b"".join(_LENGTH_AND_VOTES.pack(2, each) for each in votes)
