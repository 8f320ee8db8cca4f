"""`refinery verify`: whether a delivered folder holds what its `manifest.json` says."""

import json
import logging
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from api.cli import recompute as recomputing
from api.cli.delivered_objects import HashingReader, count_rows, read_blocks
from api.cli.exits import Exit, UsageError
from api.cli.output import printable
from api.cli.recompute import Problem, Unreadable
from blocks.delivery_manifest import MANIFEST_BYTES_MAX, DeliveredObject, DeliveryManifest
from blocks.domain.object_urls import StoreType

_MANIFEST = "manifest.json"
_ERRORS = "errors.jsonl"


class FolderUnreadable(UsageError):
    """There is no manifest.json to check the folder against, or it cannot be read."""

    code = "folder_unreadable"


class Report(msgspec.Struct, frozen=True):
    """What was found: the folder is whole if there are no `problems`."""

    job_id: str
    objects: int
    rows: int
    bytes: int
    problems: list[Problem]
    recomputed: int | None = None
    """The lines whose results were computed again; None if none were to be."""

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
    recompute: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Compute every label and confidence again, by the single labels of a job with "
            "include_labels.",
        ),
    ] = False,
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
        fs = _file_system(uri, endpoint_url, anonymous=anonymous)
        report = check_folder(fs, _path(uri), recompute=recompute)
    except _failures(uri) as error:
        raise FolderUnreadable(f"{uri}: {error}") from error
    if as_json:
        print(json.dumps(msgspec.to_builtins(report) | {"whole": report.whole}))
    else:
        _print(report)
    if not report.whole:
        sys.exit(Exit.FAILED)


def check_folder(fs: Any, folder: str, *, recompute: bool = False) -> Report:
    """Compare what stands in `folder` of an fsspec file system with its manifest, in bounded memory.

    With `recompute`, also compute the results of all lines again.

    Raises:
        FolderUnreadable: there is no manifest, or it is none of ours.
        NotRecomputable: the job was delivered without its single labels.
        OSError: the store cannot be read.
    """
    manifest = _read_manifest(fs, folder)
    again = recomputing.Recomputation(manifest) if recompute else None
    sizes = {
        path.removeprefix(f"{folder}/"): entry["size"]
        for path, entry in fs.find(folder, detail=True).items()
    }
    problems = list(find_problems(manifest, sizes, lambda name: _read(fs, f"{folder}/{name}")))
    if again is not None:
        unreadable = {each.object for each in problems if isinstance(each, Unreadable)}
        problems += again.find_problems(fs, folder, present=sizes.keys(), unreadable=unreadable)
    return Report(
        manifest.job_id,
        len(manifest.objects),
        sum(each.rows for each in manifest.objects),
        sum(each.bytes for each in manifest.objects),
        problems,
        None if again is None else again.lines,
    )


def find_problems(
    manifest: DeliveryManifest, sizes: Mapping[str, int], read: Callable[[str], Content]
) -> Iterator[Problem]:
    """Yield what is wrong with a folder whose objects have these `sizes` in bytes, by their names.

    `read` is asked for the content of those objects alone that have the right size.
    """
    for each in manifest.objects:
        name = _name(each)
        if problem := _find_problem(name, each, sizes.get(name), partial(read, name)):
            yield problem
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


def _find_problem(
    name: str, expected: DeliveredObject, size: int | None, read: Callable[[], Content]
) -> Problem | None:
    if size is None:
        return Problem(name, "It is missing.")
    if size != expected.bytes:
        return Problem(name, f"It has {size:,} bytes instead of {expected.bytes:,}.")
    found = read()
    if found.sha256 != expected.sha256:
        return Problem(name, "Its content is another: the SHA-256 differs.")
    if found.damage:
        return Unreadable(name, f"It cannot be read: {found.damage}.")
    if found.rows != expected.rows:
        return Problem(name, f"It has {found.rows:,} rows instead of {expected.rows:,}.")
    return None


def _print(report: Report) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for problem in report.problems:
        name = Text(printable(problem.object), "red")
        console.print(name + Text(f": {printable(problem.message)}"))
    verdict = Text("whole", "green") if report.whole else Text("not whole", "red")
    counts = f"{report.objects} objects, {report.rows:,} rows, {report.bytes:,} bytes"
    if report.recomputed is not None:
        counts += f", {report.recomputed:,} results computed again"
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
        hashed = HashingReader(file)
        try:
            rows = sum(block.count(b"\n") for block in read_blocks(hashed, path))
        except (OSError, EOFError, zlib.error) as error:
            damage = str(error)
        sha256 = hashed.hexdigest()
    if path.endswith(".parquet"):
        try:
            rows = count_rows(fs, path)
        except (OSError, ValueError) as error:
            damage = str(error)
    return Content(sha256, rows, damage)


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
    if "://" in uri:
        raise FolderUnreadable(f"{uri!r} is not s3://…, gs://…, or a local folder.")
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem()


def _failures(uri: str) -> tuple[type[Exception], ...]:
    """Return the errors of a store's client, such as those where there are no credentials."""
    if _store_of(uri) is StoreType.S3:
        from botocore.exceptions import BotoCoreError, ClientError

        return OSError, ValueError, BotoCoreError, ClientError
    if _store_of(uri) is StoreType.GCS:
        from aiohttp import ClientError as ConnectionFailed
        from gcsfs.retry import HttpError
        from google.auth.exceptions import GoogleAuthError

        return OSError, ValueError, ConnectionFailed, HttpError, GoogleAuthError
    return OSError, ValueError


def _path(uri: str) -> str:
    if _store_of(uri):
        return uri.partition("://")[2].rstrip("/")
    return str(Path(uri).resolve())


def _store_of(uri: str) -> StoreType | None:
    """Return the store that `uri` names; None for a local folder."""
    scheme, separator, _ = uri.partition("://")
    return StoreType.of_scheme(scheme) if separator else None
