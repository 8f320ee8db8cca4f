"""Write results as Parquet: the fields of an export line as columns."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.domain.model import Compression

# So many bytes of JSON become a row group: that bounds memory, and readers skip whole groups.
_ROW_GROUP_BYTES = 16 * 1024 * 1024

SCHEMA = pa.schema(
    [
        pa.field("task_id", pa.string(), nullable=False),
        pa.field("line", pa.int64()),
        pa.field("data_url", pa.string(), nullable=False),
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

_METADATA = b',"metadata":'
_AFTER_METADATA = b',"status":"settled","consensus_label":'


class _Row(msgspec.Struct, frozen=True, gc=False):
    task_id: str
    line: int | None
    data_url: str
    status: str
    consensus_label: str
    confidence: float
    worker_count: int
    agreement_count: int
    votes: dict[str, int]
    created_at: datetime
    settled_at: datetime


_decoder = msgspec.json.Decoder(list[_Row])


def write(file: Any, blocks: Iterable[bytes], *, compression: Compression) -> int:
    """Write `blocks` of export lines as one Parquet file; return the number of rows.

    `compression` is that of the pages inside.
    """
    rows = 0
    with pq.ParquetWriter(file, SCHEMA, compression=compression.value) as writer:
        for group in _groups(blocks):
            batch = _batch(group)
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _groups(blocks: Iterable[bytes]) -> Iterator[bytes]:
    group = bytearray()
    for block in blocks:
        group += block
        if len(group) >= _ROW_GROUP_BYTES:
            yield bytes(group)
            group.clear()
    if group:
        yield bytes(group)


def _batch(lines: bytes) -> pa.RecordBatch:
    texts, rest = zip(*map(_without_metadata, lines.rstrip(b"\n").split(b"\n")), strict=True)
    rows = _decoder.decode(b"[" + b",".join(rest) + b"]")
    columns: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows] for name in SCHEMA.names if name != "metadata"
    }
    columns["metadata"] = [None if text == b"null" else text.decode() for text in texts]
    columns["votes"] = [list(row.votes.items()) for row in rows]
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


def _without_metadata(line: bytes) -> tuple[bytes, bytes]:
    """Return the text of a line's metadata, and the line without it: decoders bound the depth.

    One string comes before its key, and fields of ours after it; in both a quote is escaped, so the two
    searches find the right places.
    """
    key = line.index(_METADATA)
    end = line.rindex(_AFTER_METADATA)
    return line[key + len(_METADATA) : end], line[:key] + line[end:]
