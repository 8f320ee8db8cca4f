"""`refinery verify`: whether a delivered folder holds what its `manifest.json` says."""

import gzip
import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any, cast

import msgspec
from cyclopts import Parameter
from rich.console import Console

from api.cli.admin import app
from blocks.delivery_manifest import MANIFEST_BYTES_MAX, DeliveredObject, DeliveryManifest
from blocks.domain.errors import RefineryError
from blocks.domain.object_urls import StoreType

_MANIFEST = "manifest.json"
_ERRORS = "errors.jsonl"
_BLOCK_BYTES = 1024 * 1024
_NOT_WHOLE, _UNREADABLE = 1, 2


class FolderUnreadable(RefineryError):
    """There is no manifest.json to check the folder against, or it cannot be read."""

    code = "folder_unreadable"


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with one object."""

    object: str
    message: str


class Report(msgspec.Struct, frozen=True):
    """What was found: the folder is whole if there are no `problems`."""

    job_id: str
    objects: int
    rows: int
    bytes: int
    problems: list[Problem]

    @property
    def whole(self) -> bool:
        return not self.problems


@app.command
def verify(
    uri: str,
    *,
    endpoint_url: Annotated[str | None, Parameter(help="Of an S3-compatible store.")] = None,
    anonymous: Annotated[bool, Parameter(help="Read without credentials.")] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="The report as JSON.")] = False,
) -> None:
    """Check a delivered folder against its manifest.json: every object, its bytes, SHA-256 and rows.

    Credentials are those of the environment (AWS_ACCESS_KEY_ID and so on, or Google's defaults). Exits
    with 0 if the folder is whole, 1 if it is not, and 2 if that cannot be told.

    Parameters
    ----------
    uri
        s3://bucket/prefix/job_…, gs://bucket/prefix/job_…, or a local folder.
    """
    console = Console(highlight=False, soft_wrap=True)
    try:
        report = check_folder(_file_system(uri, endpoint_url, anonymous=anonymous), _path(uri))
    except (FolderUnreadable, OSError) as error:
        Console(stderr=True, highlight=False).print(f"[red]error:[/] {error}")
        sys.exit(_UNREADABLE)
    if as_json:
        print(json.dumps(msgspec.to_builtins(report) | {"whole": report.whole}))
    else:
        for problem in report.problems:
            console.print(f"[red]{problem.object}[/]: {problem.message}")
        verdict = "[green]whole[/]" if report.whole else "[red]not whole[/]"
        counts = f"{report.objects} objects, {report.rows:,} rows, {report.bytes:,} bytes"
        console.print(f"{report.job_id}: {verdict} ({counts})")
    if not report.whole:
        sys.exit(_NOT_WHOLE)


def check_folder(fs: Any, folder: str) -> Report:
    """Compare what stands in `folder` of an fsspec file system with its manifest, in bounded memory.

    Raises:
        FolderUnreadable: there is no manifest, or it is none of ours.
        OSError: the store cannot be read.
    """
    try:
        size = fs.info(f"{folder}/{_MANIFEST}")["size"]
        if size > MANIFEST_BYTES_MAX:
            raise FolderUnreadable(f"{_MANIFEST} is not that of a delivery: it has {size:,} bytes.")
        # Without an end a store might send more than it says.
        data = fs.cat_file(f"{folder}/{_MANIFEST}", start=0, end=size)
    except FileNotFoundError as error:
        raise FolderUnreadable(
            f"There is no {_MANIFEST} in {folder}: nothing was delivered."
        ) from error
    try:
        manifest = msgspec.json.decode(data, type=DeliveryManifest)
    except msgspec.DecodeError as error:
        raise FolderUnreadable(f"{_MANIFEST} is not that of a delivery: {error}") from error
    sizes = {
        path.removeprefix(f"{folder}/"): entry["size"]
        for path, entry in fs.find(folder, detail=True).items()
    }
    problems = []
    for each in manifest.objects:
        name = each.key.rpartition("/")[2]
        message = _fault(fs, f"{folder}/{name}", sizes.get(name), each)
        if message:
            problems.append(Problem(name, message))
    known = {each.key.rpartition("/")[2] for each in manifest.objects} | {_MANIFEST}
    problems += [
        Problem(name, "It does not belong to the delivery.") for name in sorted(set(sizes) - known)
    ]
    rows = sum(each.rows for each in manifest.objects)
    errors = sum(each.rows for each in manifest.objects if each.key.endswith(_ERRORS))
    for what, found, counted in (
        ("results", rows - errors, manifest.tasks_done),
        ("errors", errors, manifest.tasks_failed),
    ):
        if found != counted:
            message = f"The objects have {found:,} {what}, and the job counted {counted:,}."
            problems.append(Problem(_MANIFEST, message))
    return Report(
        manifest.job_id,
        len(manifest.objects),
        rows,
        sum(each.bytes for each in manifest.objects),
        problems,
    )


def _fault(fs: Any, path: str, size: int | None, expected: DeliveredObject) -> str | None:
    if size is None:
        return "It is missing."
    if size != expected.bytes:
        return f"It has {size:,} bytes instead of {expected.bytes:,}."
    with fs.open(path, "rb") as file:
        hashed = _HashingReader(file)
        try:
            rows = sum(block.count(b"\n") for block in _lines(hashed, path))
        except (OSError, EOFError) as error:
            return f"It cannot be decompressed: {error}."
        if hashed.hexdigest() != expected.sha256:
            return "Its content is another: the SHA-256 differs."
    if path.endswith(".parquet"):
        rows = _parquet_rows(fs, path)
    if rows != expected.rows:
        return f"It has {rows:,} rows instead of {expected.rows:,}."
    return None


class _HashingReader(io.RawIOBase):
    """Passes on what is read, and knows its SHA-256."""

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
        """Of the whole file, whatever of it was read."""
        while self.read(_BLOCK_BYTES):
            pass
        return self._sha256.hexdigest()


def _lines(file: _HashingReader, path: str) -> Iterator[bytes]:
    """What is in a file of lines, decompressed; nothing of any other."""
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


def _parquet_rows(fs: Any, path: str) -> int:
    import pyarrow.parquet as pq

    with fs.open(path, "rb") as file:
        rows: int = pq.ParquetFile(file).metadata.num_rows
    return rows


def _file_system(uri: str, endpoint_url: str | None, *, anonymous: bool) -> Any:
    store = _store_of(uri)
    if store is StoreType.S3:
        import s3fs

        return s3fs.S3FileSystem(
            anon=anonymous, endpoint_url=endpoint_url, skip_instance_cache=True
        )
    if store is StoreType.GCS:
        from gcsfs.core import GCSFileSystem

        token = "anon" if anonymous else None
        return GCSFileSystem(token=token, endpoint_url=endpoint_url, skip_instance_cache=True)
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem()


def _path(uri: str) -> str:
    if _store_of(uri):
        return uri.partition("://")[2].rstrip("/")
    return str(Path(uri).resolve())


def _store_of(uri: str) -> StoreType | None:
    """Return the store that `uri` names; None for a local folder."""
    scheme, separator, _ = uri.partition("://")
    return StoreType.of_scheme(scheme) if separator else None
