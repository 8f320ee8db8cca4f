"""Files that commands read and write: JSON as it was written, and results whole or not at all."""

import fcntl
import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec

from api.cli.exits import CommandFailed, Exit, UsageError

# More than any API takes in one request, so that no device is read for ever.
_BYTES_MAX = 64 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
# Names in these folders stand for something that is open already, which may be a plain file.
_STAND_INS = frozenset({Path("/dev"), Path("/dev/fd")})


def read_object(file: Path) -> dict[str, msgspec.Raw]:
    """Return the fields of the JSON object in a file, each as it was written; `-` is standard input.

    Raises:
        UsageError: there is no JSON object in it; it says in which line and column.
    """
    content = _read(file)
    _check_object(content, _name(file), 1)
    return msgspec.json.decode(content, type=dict[str, msgspec.Raw])


def read_objects(file: Path) -> list[msgspec.Raw]:
    """Return the JSON objects in a file, one a line, each as it was written; `-` is standard input.

    Lines end with a line feed alone, as everywhere in Refinery, and blank ones are skipped.

    Raises:
        UsageError: a line is no JSON object, or there is none; it says in which line and column.
    """
    found = []
    for number, line in enumerate(_read(file).split(b"\n"), start=1):
        if text := line.strip(b" \t\r"):
            _check_object(text, _name(file), number)
            found.append(msgspec.Raw(text))
    if not found:
        raise UsageError(f"{_name(file)}: There is nothing in it.")
    return found


def read_text(file: Path) -> str:
    """Return the text in a file; `-` is standard input.

    Raises:
        UsageError: it is not UTF-8; it says in which line.
    """
    content = _read(file)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(content, _name(file), 1, error) from error


def _name(file: Path) -> str:
    return "standard input" if str(file) == "-" else str(file)


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(_BYTES_MAX + 1)
        else:
            with file.open("rb") as opened:
                content = opened.read(_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{_name(file)}: {error.strerror}.") from error
    if len(content) > _BYTES_MAX:
        raise UsageError(f"{_name(file)}: It has more than {_BYTES_MAX // 1024**2} MiB.")
    return content.removeprefix(_BOM)


def _check_object(text: bytes, name: str, first_line: int) -> None:
    """Pass if `text` is a JSON object, with any numbers and keys; the API judges what they mean."""
    try:
        # Numbers stay text: Python refuses those of thousands of digits.
        value: Any = json.loads(
            text.decode(), parse_int=str, parse_float=str, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as error:
        raise _not_utf8(text, name, first_line, error) from error
    except json.JSONDecodeError as error:
        place = f"{name}, line {first_line + error.lineno - 1}, column {error.colno}"
        raise UsageError(f"{place}: This is not JSON: {error.msg}.") from error
    except _NotJson as error:
        raise UsageError(f"{name}, line {first_line}: This is not JSON: {error}.") from error
    except RecursionError as error:
        raise UsageError(f"{name}, line {first_line}: It is nested too deeply.") from error
    if not isinstance(value, dict):
        raise UsageError(f"{name}, line {first_line}: This must be a JSON object.")
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError as error:  # the rest of what Python takes for JSON
        message = r"An escape such as \ud800 is half a character"
        raise UsageError(f"{name}, line {first_line}: {message}.") from error


def _not_utf8(text: bytes, name: str, first_line: int, error: UnicodeDecodeError) -> UsageError:
    line = first_line + text.count(b"\n", 0, error.start)
    byte = error.start - text.rfind(b"\n", 0, error.start)
    return UsageError(f"{name}, line {line}: This is not UTF-8, from byte {byte} on.")


class _NotJson(Exception):
    """A word that only Python takes for JSON."""


def _refuse_constant(word: str) -> NoReturn:
    raise _NotJson(f"{word} is no number of it")


def is_stand_in(file: Path) -> bool:
    """Return True for a pipe, a device, or a name like /dev/stdout: there is nothing to be replaced.

    Raises:
        OSError: it cannot be told.
    """
    place = Path(os.path.abspath(file))  # noqa: PTH100 - the links have to stay
    if place.parent in _STAND_INS or place.is_relative_to("/proc"):
        return True
    try:
        return not stat.S_ISREG(file.stat().st_mode)
    except FileNotFoundError:
        return False


@contextmanager
def replaced(file: Path | None, suffix: str, *, resumable: bool = False) -> Iterator[BinaryIO]:
    """Yield a file beside `file`, which takes its place when the block has ended well.

    Until then `file` stays as it is, or is not made. The one beside it, `FILE.SUFFIX.part`, is deleted
    where the block fails; a `resumable` one that has something in it is kept, and is yielded again the
    next time. For None, standard output is yielded, and for a stand-in, such as /dev/stdout, what it
    stands for.

    Raises:
        CommandFailed: somebody else is writing the same, or it cannot be written.
    """
    if file is None:
        yield sys.stdout.buffer
        return
    if is_stand_in(file):
        with _named(file), file.open("ab") as opened:  # a plain file keeps its content
            yield opened
        return
    target = file.resolve()
    part = target.with_name(f"{target.name}.{suffix}.part")
    with _named(part), part.open("ab+") as opened:
        _lock(opened, part)
        if not resumable:
            opened.truncate(0)
        try:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
            _keep_owner(opened, target)
            part.replace(target)
        except BaseException:
            if not (resumable and opened.seek(0, os.SEEK_END)):
                part.unlink(missing_ok=True)
            raise


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Add the name of `file` to a failure to write; the system names files only if opening fails."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is not None:
            raise
        raise CommandFailed(f"{file}: {error.strerror}", Exit.FAILED) from error


def _lock(opened: BinaryIO, part: Path) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.fstat(opened.fileno()).st_ino == part.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        is_ours = False
    if not is_ours:  # if not locked, it has just been put in its place by another command
        message = f"Another command is writing {part}; wait for it, or name another file."
        raise CommandFailed(message, Exit.CONFLICT)


def _keep_owner(opened: BinaryIO, target: Path) -> None:
    try:
        before = target.stat()
    except FileNotFoundError:
        return
    with suppress(PermissionError):
        os.fchown(opened.fileno(), before.st_uid, before.st_gid)
    os.fchmod(opened.fileno(), stat.S_IMODE(before.st_mode))
