"""Write results as Parquet: the fields of an export line as columns."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.domain import ids
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

# These are columns of `RESULT_COLUMNS` as they are.
_VERBATIM = "line", "data_url", "text", "metadata", "created_at", "settled_at"
_OLDEST = pl.CompatLevel.oldest()


def write(file: Any, results: Iterable[Results], *, compression: Compression) -> int:
    """Write results as one Parquet file; return the number of rows.

    `compression` is that of the pages inside.
    """
    rows = 0
    with pq.ParquetWriter(file, SCHEMA, compression=compression.value) as writer:
        for group in _groups(results):
            writer.write_table(group, row_group_size=group.num_rows)
            rows += group.num_rows
    return rows


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
        pl.lit(ids.task_ids(results.job_id)) + pl.col("task_no").cast(pl.String)
    )
    columns["task_id"] = _arrow(task_ids.to_series())
    columns["status"] = pa.repeat("settled", len(tasks))
    ballots = _ballots(results.options, results.ballots).take(_arrow(tasks["ballot"]))
    columns |= zip(ballots.schema.names, ballots.columns, strict=True)
    return pa.record_batch([columns[field.name].cast(field.type) for field in SCHEMA], SCHEMA)


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


def _arrow(column: pl.Series) -> pa.Array:
    return column.rechunk().to_arrow(compat_level=_OLDEST)
