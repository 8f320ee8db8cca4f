"""`refinery verify`: whether a delivered folder holds what its `manifest.json` says."""

import gzip
import hashlib
import io
import json
import logging
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any, cast

import msgspec
from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from api.cli.exits import Exit, UsageError
from api.cli.output import printable
from blocks.delivery_manifest import MANIFEST_BYTES_MAX, DeliveredObject, DeliveryManifest

_MANIFEST = "manifest.json"
_ERRORS = "errors.jsonl"
_BLOCK_BYTES = 1024 * 1024


class FolderUnreadable(UsageError):
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


class Content(msgspec.Struct, frozen=True):
    """What was read of one object: its hash, and its rows, or why they cannot be counted."""

    sha256: str
    rows: int = 0
    damage: str = ""


def add_commands(app: App) -> None:
    """Add `verify` to the command."""
    app.command(verify)


def verify(
    uri: str,
    *,
    endpoint_url: Annotated[
        str | None, Parameter(help="The address of an S3-compatible store.")
    ] = None,
    anonymous: Annotated[bool, Parameter(help="Read without credentials.")] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check a delivered folder against its manifest.json: every object, its bytes, SHA-256 and rows.

    Credentials are those of the environment (AWS_ACCESS_KEY_ID and so on, or Google's defaults). Exits
    with 0 if the folder is whole, 1 if it is not, and 2 if that cannot be told.

    Parameters
    ----------
    uri
        s3://bucket/prefix/job_…, gs://bucket/prefix/job_…, or a local folder.
    """
    logging.basicConfig(
        handlers=[logging.NullHandler()]
    )  # a store's client logs a traceback before it raises
    try:
        report = check_folder(_file_system(uri, endpoint_url, anonymous=anonymous), _path(uri))
    except _failures(uri) as error:
        raise FolderUnreadable(f"{uri}: {error}") from error
    if as_json:
        print(json.dumps(msgspec.to_builtins(report) | {"whole": report.whole}))
    else:
        _print(report)
    if not report.whole:
        sys.exit(Exit.FAILED)


def check_folder(fs: Any, folder: str) -> Report:
    """Compare what stands in `folder` of an fsspec file system with its manifest, in bounded memory.

    Raises:
        FolderUnreadable: there is no manifest, or it is none of ours.
        OSError: the store cannot be read.
    """
    manifest = _read_manifest(fs, folder)
    sizes = {
        path.removeprefix(f"{folder}/"): entry["size"]
        for path, entry in fs.find(folder, detail=True).items()
    }
    return Report(
        manifest.job_id,
        len(manifest.objects),
        sum(each.rows for each in manifest.objects),
        sum(each.bytes for each in manifest.objects),
        list(find_problems(manifest, sizes, lambda name: _read(fs, f"{folder}/{name}"))),
    )


def find_problems(
    manifest: DeliveryManifest, sizes: Mapping[str, int], read: Callable[[str], Content]
) -> Iterator[Problem]:
    """Yield what is wrong with a folder whose objects have these `sizes` in bytes, by their names.

    `read` is asked for the content of those objects alone that have the right size.
    """
    for each in manifest.objects:
        name = _name(each)
        if message := _fault(each, sizes.get(name), partial(read, name)):
            yield Problem(name, message)
    for name in sorted(set(sizes) - {_MANIFEST, *map(_name, manifest.objects)}):
        yield Problem(name, "It does not belong to the delivery.")
    rows: Counter[bool] = Counter()
    for each in manifest.objects:
        rows[each.key.endswith(_ERRORS)] += each.rows
    for what, found, counted in (
        ("results", rows[False], manifest.tasks_done),
        ("errors", rows[True], manifest.tasks_failed),
    ):
        if found != counted:
            message = f"The objects have {found:,} {what}, and the job counted {counted:,}."
            yield Problem(_MANIFEST, message)


def _name(each: DeliveredObject) -> str:
    return each.key.rpartition("/")[2]


def _fault(expected: DeliveredObject, size: int | None, read: Callable[[], Content]) -> str | None:
    if size is None:
        return "It is missing."
    if size != expected.bytes:
        return f"It has {size:,} bytes instead of {expected.bytes:,}."
    found = read()
    if found.sha256 != expected.sha256:
        return "Its content is another: the SHA-256 differs."
    if found.damage:
        return f"It cannot be read: {found.damage}."
    if found.rows != expected.rows:
        return f"It has {found.rows:,} rows instead of {expected.rows:,}."
    return None


def _print(report: Report) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for problem in report.problems:
        name = Text(printable(problem.object), "red")
        console.print(name + Text(f": {printable(problem.message)}"))
    verdict = Text("whole", "green") if report.whole else Text("not whole", "red")
    counts = f"{report.objects} objects, {report.rows:,} rows, {report.bytes:,} bytes"
    console.print(Text(f"{printable(report.job_id)}: ") + verdict + Text(f" ({counts})"))


def _read_manifest(fs: Any, folder: str) -> DeliveryManifest:
    try:
        size = fs.info(f"{folder}/{_MANIFEST}")["size"]
        if size > MANIFEST_BYTES_MAX:
            raise FolderUnreadable(f"{_MANIFEST} is not that of a delivery: it has {size:,} bytes.")
        # Without an end, a store might send more bytes than it told.
        data = fs.cat_file(f"{folder}/{_MANIFEST}", start=0, end=size)
    except FileNotFoundError as error:
        raise FolderUnreadable(
            f"There is no {_MANIFEST} in {folder}: nothing was delivered."
        ) from error
    try:
        return msgspec.json.decode(data, type=DeliveryManifest)
    except (ValueError, RecursionError) as error:
        raise FolderUnreadable(
            f"{_MANIFEST} in {folder} is not that of a delivery, or it is damaged."
        ) from error


def _read(fs: Any, path: str) -> Content:
    rows, damage = 0, ""
    with fs.open(path, "rb") as file:
        hashed = _HashingReader(file)
        try:
            rows = sum(block.count(b"\n") for block in _lines(hashed, path))
        except (OSError, EOFError, zlib.error) as error:
            damage = str(error)
        sha256 = hashed.hexdigest()
    if path.endswith(".parquet"):
        try:
            rows = _parquet_rows(fs, path)
        except (OSError, ValueError) as error:
            damage = str(error)
    return Content(sha256, rows, damage)


class _HashingReader(io.RawIOBase):
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


def _lines(file: _HashingReader, path: str) -> Iterator[bytes]:
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


def _parquet_rows(fs: Any, path: str) -> int:
    import pyarrow.parquet as pq

    with fs.open(path, "rb") as file:
        rows: int = pq.ParquetFile(file).metadata.num_rows
    return rows


def _file_system(uri: str, endpoint_url: str | None, *, anonymous: bool) -> Any:
    if uri.startswith("s3://"):
        import s3fs

        return s3fs.S3FileSystem(
            anon=anonymous, endpoint_url=endpoint_url, skip_instance_cache=True
        )
    if uri.startswith("gs://"):
        from gcsfs.core import GCSFileSystem

        token = "anon" if anonymous else None
        return GCSFileSystem(token=token, endpoint_url=endpoint_url, skip_instance_cache=True)
    if "://" in uri:
        raise FolderUnreadable(f"{uri!r} is not s3://…, gs://…, or a local folder.")
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem()


def _failures(uri: str) -> tuple[type[Exception], ...]:
    """Return the errors of a store's client, such as those where there are no credentials."""
    if uri.startswith("s3://"):
        from botocore.exceptions import BotoCoreError, ClientError

        return OSError, ValueError, BotoCoreError, ClientError
    if uri.startswith("gs://"):
        from aiohttp import ClientError as ConnectionFailed
        from gcsfs.retry import HttpError
        from google.auth.exceptions import GoogleAuthError

        return OSError, ValueError, ConnectionFailed, HttpError, GoogleAuthError
    return OSError, ValueError


def _path(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    if separator and scheme in {"s3", "gs"}:
        return rest.rstrip("/")
    return str(Path(uri).resolve())
