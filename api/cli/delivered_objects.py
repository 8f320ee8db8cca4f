"""Read objects of a delivery, of any layout, in bounded memory."""

import gzip
import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import IO, Any, cast

_BLOCK_BYTES = 64 * 1024
_LINE_BYTES_MAX = 64 * 1024 * 1024
_ROWS_AT_A_TIME = 4096


class HashingReader(io.RawIOBase):
    """A file that knows the SHA-256 of what was read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._sha256.update(data)
        return len(data)

    def hexdigest(self) -> str:
        """Read the file to its end, and return its SHA-256."""
        while self.read(_BLOCK_BYTES):
            pass
        return self._sha256.hexdigest()


def read_blocks(file: HashingReader, path: str) -> Iterator[bytes]:
    """Yield the content of a file of lines, decompressed, block by block; nothing for any other."""
    source: Any = file
    if path.endswith(".gz"):
        source = gzip.GzipFile(fileobj=cast(IO[bytes], file))
    elif path.endswith(".zst"):
        import pyarrow as pa

        source = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
    elif not path.endswith(".jsonl"):
        return
    while block := source.read(_BLOCK_BYTES):
        yield block


def read_lines(fs: Any, path: str) -> Iterator[bytes]:
    """Yield the lines of a file of lines, decompressed, without their line feeds.

    Raises:
        ValueError: one has more than 64 MiB.
        OSError, EOFError, zlib.error: the file is damaged.
    """
    with fs.open(path, "rb") as file:
        rest = b""
        for block in read_blocks(HashingReader(file), path):
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) > _LINE_BYTES_MAX:
                raise ValueError("it has a line of more than 64 MiB")
            yield from lines
        if rest:
            yield rest


def read_rows(
    fs: Any, path: str, columns: Sequence[str], *, without: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yield those of some columns that a Parquet file has, row by row, without some paths in them.

    A map with a repeated key is a list of its pairs, any other one a dict.

    Raises:
        OSError, ValueError: the file is damaged, or has none of the columns.
    """
    import pyarrow.parquet as pq

    with _whole(), fs.open(path, "rb") as file:
        parquet = pq.ParquetFile(file)
        paths = [parquet.schema.column(n).path for n in range(len(parquet.schema))]
        known = [
            path for path in paths if path.partition(".")[0] in columns and path not in without
        ]
        if not known:
            raise ValueError("it has none of the columns of results")
        for batch in parquet.iter_batches(_ROWS_AT_A_TIME, columns=known):
            batch.validate(full=True)  # Polars takes texts for UTF-8 unseen, and panics later
            yield from _rows(batch)


def count_rows(fs: Any, path: str) -> int:
    """Return how many rows a Parquet file says it has.

    Raises:
        OSError, ValueError: the file is damaged.
    """
    import pyarrow.parquet as pq

    with _whole(), fs.open(path, "rb") as file:
        rows: int = pq.ParquetFile(file).metadata.num_rows
    return rows


@contextmanager
def _whole() -> Iterator[None]:
    """Raise ValueError for whatever libraries raise where a Parquet file is damaged."""
    import polars as pl
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(str(error)) from error


def _rows(batch: Any) -> Iterator[dict[str, Any]]:
    import polars as pl
    import pyarrow as pa

    sizes = {
        name: _sizes(batch.column(name))
        for name, kind in zip(batch.schema.names, batch.schema.types, strict=True)
        if pa.types.is_map(kind)
    }
    for nth, row in enumerate(pl.DataFrame(batch).iter_rows(named=True)):
        for name, pairs in sizes.items():
            if row[name] is not None and len(row[name]) != pairs[nth]:
                row[name] = list(row[name].items())
        yield row


def _sizes(maps: Any) -> list[int]:
    """Return how many pairs each map of a column has."""
    offsets = maps.offsets.to_pylist()
    return [end - start for start, end in pairwise(offsets)]
