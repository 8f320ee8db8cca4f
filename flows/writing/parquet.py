"""Write results as Parquet: the fields of an export line as columns."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.domain import ids
from blocks.domain.consensus import ALL
from blocks.domain.model import Compression
from blocks.lines.result_lines import Ballot, Results, count_line_bytes

# So many bytes of JSON become a row group: that bounds memory, and readers skip whole groups.
_ROW_GROUP_BYTES = 16 * 1024 * 1024

SCHEMA = pa.schema(
    [
        pa.field("task_id", pa.string(), nullable=False),
        pa.field("line", pa.int64()),
        pa.field("data_url", pa.string()),  # null where there is a text
        pa.field("text", pa.string()),
        pa.field("metadata", pa.string()),  # JSON, verbatim
        pa.field("status", pa.string(), nullable=False),
        pa.field("consensus_label", pa.string(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("worker_count", pa.int32(), nullable=False),
        pa.field("agreement_count", pa.int32(), nullable=False),
        pa.field("votes", pa.map_(pa.string(), pa.int32()), nullable=False),
        pa.field("created_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("settled_at", pa.timestamp("us", "UTC"), nullable=False),
    ]
)

_SETTLED_BY = pa.field("settled_by", pa.string(), nullable=False)  # only with a review queue
_GOLD = pa.field("gold", pa.bool_(), nullable=False)  # only where the job has gold

# These are columns of `RESULT_COLUMNS` as they are.
_VERBATIM = "line", "data_url", "text", "metadata", "created_at", "settled_at"
_OLDEST = pl.CompatLevel.oldest()


def write(file: Any, results: Iterable[Results], *, compression: Compression) -> int:
    """Write results as one Parquet file; return the number of rows.

    `compression` is that of the pages inside.
    """
    rows = 0
    groups = _groups(results)
    first = next(groups, None)
    schema = SCHEMA if first is None else first.schema
    with pq.ParquetWriter(file, schema, compression=compression.value) as writer:
        for group in () if first is None else chain([first], groups):
            writer.write_table(group, row_group_size=group.num_rows)
            rows += group.num_rows
    return rows


def _schema_of(results: Results) -> pa.Schema:
    """Return the columns of a job: those of all, and what its results have beside them."""
    schema, extras = SCHEMA, results.extras
    if results.is_reviewed is not None:
        schema = schema.append(_SETTLED_BY)
    if extras.has_gold:
        schema = schema.append(_GOLD)
    if extras.has_labels:
        label = [
            pa.field("annotator", pa.string(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            *([pa.field("skill", pa.float64(), nullable=False)] if extras.is_weighted else []),
            pa.field("at", pa.timestamp("us", "UTC"), nullable=False),
        ]
        labels = pa.list_(pa.field("element", pa.struct(label), nullable=False))
        schema = schema.append(pa.field("labels", labels, nullable=False))
    return schema


def _groups(results: Iterable[Results]) -> Iterator[pa.Table]:
    group, size = [], 0
    for some in results:
        group.append(_batch(some))
        size += count_line_bytes(some)
        if size >= _ROW_GROUP_BYTES:
            yield pa.Table.from_batches(group)
            group, size = [], 0
    if group:
        yield pa.Table.from_batches(group)


def _batch(results: Results) -> pa.RecordBatch:
    tasks = results.tasks
    columns = {name: _arrow(tasks[name]) for name in _VERBATIM}
    task_ids = tasks.select(
        pl.lit(ids.task_ids(results.job_id)) + pl.col("id_number").cast(pl.String)
    )
    columns["task_id"] = _arrow(task_ids.to_series())
    columns["status"] = pa.repeat("settled", len(tasks))
    ballots = _ballots(results.options, results.ballots).take(_arrow(tasks["ballot"]))
    columns |= zip(ballots.schema.names, ballots.columns, strict=True)
    if results.extras.is_weighted:
        columns["confidence"] = _arrow(_shares().gather(tasks["confidence"]))
    schema = _schema_of(results)
    if results.settled_by is not None:
        columns["settled_by"] = _arrow(results.settled_by)
    if results.extras.has_gold:
        columns["gold"] = _arrow(results.is_gold)
    if results.labels is not None:
        columns["labels"] = _labels(results, results.labels, schema.field("labels").type)
    return pa.record_batch([columns[field.name].cast(field.type) for field in schema], schema)


def _labels(results: Results, labels: pl.DataFrame, kind: pa.ListType) -> pa.Array:
    """Return the single labels of each task."""
    options = pl.Series(results.options, dtype=pl.String)
    columns = {
        "annotator": labels["annotator"],
        "label": options.gather(labels["option"] - 1),
        "skill": _shares().gather(labels["skill"]),
        "at": labels["at"],
    }
    fields = list(kind.value_type)
    each = [_arrow(columns[field.name]).cast(field.type) for field in fields]
    counted = labels.group_by("task_no").len()
    sizes = results.tasks.join(counted, on="task_no", how="left", maintain_order="left")["len"]
    ends = pl.concat([pl.Series([0], dtype=pl.Int64), sizes.fill_null(0).cast(pl.Int64).cum_sum()])
    structs = pa.StructArray.from_arrays(each, fields=fields)
    return pa.ListArray.from_arrays(_arrow(ends.cast(pl.Int32)), structs, type=kind)


def _ballots(options: Sequence[str], ballots: Sequence[Ballot]) -> pa.RecordBatch:
    """Return the columns that follow from the votes: a row for each distinct ballot."""
    columns = {
        "consensus_label": [options[ballot.winner] for ballot in ballots],
        "confidence": [ballot.confidence for ballot in ballots],
        "worker_count": [ballot.labels for ballot in ballots],
        "agreement_count": [ballot.agreed for ballot in ballots],
        "votes": [list(zip(options, ballot.votes, strict=True)) for ballot in ballots],
    }
    return pa.RecordBatch.from_pydict(
        columns, schema=pa.schema([SCHEMA.field(name) for name in columns])
    )


@cache
def _shares() -> pl.Series:
    """Return all ten-thousandths from 0 to 1; a division of columns is not exact to the last bit."""
    return pl.Series([n / ALL for n in range(ALL + 1)])


def _arrow(column: pl.Series) -> pa.Array:
    return column.rechunk().to_arrow(compat_level=_OLDEST)
