"""What commands read stays as it was written; what they write is whole, or what was there before."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from api.cli import files
from api.cli.exits import CommandFailed, Exit, UsageError
from api.cli.files import is_stand_in, read_object, read_objects, replaced

BEFORE = b"before\n"


def put(folder: Path, content: bytes) -> Path:
    file = folder / "given"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    "value",
    [
        b'{"b": 1, "a": 2,  "b": 3}',
        b'{"n": 1e400, "m": -0.0, "x": 1.10000000000000000000000000001}',
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"s": "\\u2028\xe2\x80\xa8\xc2\x85\x0b"}'.replace(b"\x0b", b"\\u000b"),
        b'{"s": "\\ud83d\\ude00 \\/ \x7f"}',
    ],
)
def test_each_object_is_kept_byte_for_byte(value: bytes, tmp_path: Path) -> None:
    line = b'{"metadata": ' + value + b"}"
    file = put(tmp_path, b"\xef\xbb\xbf" + line + b"\r\n\n \t\n" + line)
    assert [bytes(each) for each in read_objects(file)] == [line, line]
    assert bytes(read_object(put(tmp_path, line))["metadata"]) == value


WRONG: list[tuple[bytes, str]] = [
    (b"", "line 1, column 1: This is not JSON: Expecting value"),
    (b"{", "line 1, column 2: This is not JSON"),
    (b'{"a":\n 01}', "line 2, column 3: This is not JSON"),
    (b'{"a":\n "\xff"}', "line 2: This is not UTF-8, from byte 3 on"),
    (b'{"a": "\xed\xa0\x80"}', "line 1: This is not UTF-8, from byte 8 on"),
    (b'{"a": "\\ud800"}', r"line 1: An escape such as \ud800 is half a character"),
    (b'{"a": NaN}', "line 1: This is not JSON: NaN is no number of it"),
    (b'{"a": -Infinity}', "-Infinity is no number of it"),
    (b"[" * 100_000 + b"]" * 100_000, "line 1: It is nested too deeply"),
    (b'{"a":' * 100_000, "line 1: It is nested too deeply"),
    (b"[1]", "line 1: This must be a JSON object"),
    (b"null", "line 1: This must be a JSON object"),
    (b"\xff\xfe{\x00}\x00", "line 1: This is not UTF-8, from byte 1 on"),
    (b"\x1f\x8b\x08\x00", "line 1: This is not UTF-8, from byte 2 on"),
]


@pytest.mark.parametrize("content, said", WRONG)
def test_what_is_no_object_is_said_with_its_place(
    content: bytes, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as refused:
        read_object(put(tmp_path, content))
    assert refused.value.message.startswith(f"{tmp_path / 'given'}, line")
    assert said in refused.value.message


@pytest.mark.parametrize(
    "content, said", [each for each in WRONG if b"\n" not in each[0] and each[0]]
)
def test_a_line_that_is_no_object_is_said_with_its_number(
    content: bytes, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as refused:
        read_objects(put(tmp_path, b'{"a": "\xe2\x80\xa8"}\n\n' + content))
    assert said.replace("line 1", "line 3") in refused.value.message


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n \r\n\t"])
def test_a_file_without_a_line_is_said_to_be_empty(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing in it"):
        read_objects(put(tmp_path, content))


@pytest.mark.parametrize(
    "name, said",
    [
        ("/", "Is a directory"),
        ("/nonexistent/file", "No such file"),
        ("/dev/null/file", "Not a directory"),
        ("/proc/self/mem", "Input/output error"),  # it can be opened and not be read
        ("/dev/zero", "more than 1 MiB"),
    ],
)
def test_what_cannot_be_read_is_said(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BYTES_MAX", 1024 * 1024)
    for read in (read_object, read_objects):
        with pytest.raises(UsageError) as refused:
            read(Path(name))
        assert refused.value.message.startswith(f"{name}: ")
        assert said in refused.value.message


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b'{"a": 1}\n',))
    writer.start()
    assert [bytes(each) for each in read_objects(pipe)] == [b'{"a": 1}']
    writer.join()


@pytest.mark.parametrize("resumable", [False, True])
@pytest.mark.parametrize("before", [None, BEFORE])
def test_a_file_is_replaced_when_all_of_it_is_there(
    before: bytes | None, resumable: bool, tmp_path: Path
) -> None:
    file = tmp_path / "out"
    if before is not None:
        file.write_bytes(before)
        file.chmod(0o640)
    with replaced(file, "x", resumable=resumable) as opened:
        opened.write(b"after")
        opened.flush()
        assert (file.read_bytes() if file.exists() else None) == before
    assert (file.read_bytes(), list(tmp_path.iterdir())) == (b"after", [file])
    if before is not None:
        assert stat.S_IMODE(file.stat().st_mode) == 0o640


def break_off(file: Path, content: bytes, error: BaseException, *, resumable: bool) -> None:
    """Write `content`, and fail."""

    def write() -> None:
        with replaced(file, "x", resumable=resumable) as opened:
            opened.write(content)
            raise error

    with pytest.raises(type(error)):
        write()


@pytest.mark.parametrize("error", [CommandFailed("no", Exit.REFUSED), KeyboardInterrupt()])
def test_a_file_stays_what_it_was_where_there_is_no_answer(
    error: BaseException, tmp_path: Path
) -> None:
    file = tmp_path / "out"
    file.write_bytes(BEFORE)
    for name in ("out", "new"):
        break_off(tmp_path / name, b"half", error, resumable=False)
        break_off(tmp_path / name, b"", error, resumable=True)
    assert (file.read_bytes(), list(tmp_path.iterdir())) == (BEFORE, [file])


def test_what_has_come_is_kept_to_go_on_from(tmp_path: Path) -> None:
    break_off(tmp_path / "out", b"one\n", KeyboardInterrupt(), resumable=True)
    with replaced(tmp_path / "out", "x", resumable=True) as part:
        assert part.tell() == 4
        part.write(b"two\n")
    assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"


KILLED = """
import os, signal, sys
from pathlib import Path
from api.cli.files import replaced
with replaced(Path(sys.argv[1]), "x") as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_what_was_there_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_bytes(BEFORE)
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)
    assert (done.returncode, file.read_bytes()) == (-signal.SIGKILL, BEFORE)
    with replaced(file, "x") as opened:
        opened.write(b"after")
    assert (file.read_bytes(), list(tmp_path.iterdir())) == (b"after", [file])


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "out"
    with replaced(file, "x") as first:
        first.write(b"first")
        with pytest.raises(CommandFailed, match="Another command") as refused, replaced(file, "x"):
            raise AssertionError
    assert (refused.value.exit_code, file.read_bytes()) == (Exit.CONFLICT, b"first")


def test_one_that_was_put_in_its_place_meanwhile_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, part = tmp_path / "out", tmp_path / "out.x.part"
    lock = fcntl.flock

    def put_in_place(fd: int, how: int) -> None:
        part.replace(file)
        lock(fd, how)

    part.write_bytes(b"whole\n")
    monkeypatch.setattr(fcntl, "flock", put_in_place)
    with (
        pytest.raises(CommandFailed, match="Another command"),
        replaced(file, "x", resumable=True),
    ):
        raise AssertionError
    assert file.read_bytes() == b"whole\n"


def test_a_link_is_followed(tmp_path: Path) -> None:
    file, link = tmp_path / "out", tmp_path / "link"
    link.symlink_to(file)
    for content in (b"one", b"two"):
        with replaced(link, "x") as opened:
            opened.write(content)
        assert (link.is_symlink(), file.read_bytes()) == (True, content)


def test_what_stands_for_something_else_is_written_to(tmp_path: Path) -> None:
    out, pipe = tmp_path / "out", tmp_path / "pipe"
    os.mkfifo(pipe)
    with out.open("ab") as opened:
        for name in (f"/dev/fd/{opened.fileno()}", f"/proc/self/fd/{opened.fileno()}"):
            assert is_stand_in(Path(name))
            with replaced(Path(name), "x") as file:
                file.write(BEFORE)
    assert out.read_bytes() == BEFORE * 2
    assert is_stand_in(Path("/dev/stdout"))
    assert is_stand_in(pipe)
    assert not is_stand_in(out)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    with replaced(pipe, "x") as opened:
        opened.write(b"through")
    reader.join()
    assert found == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with replaced(Path("/dev/null"), "x") as opened:
        opened.write(b"gone")


FAILURES: list[tuple[Callable[[Path], Path], str]] = [
    (lambda folder: folder, "Is a directory"),
    (lambda folder: folder / "none" / "out", "No such file"),
    (lambda folder: Path("/dev/full"), "/dev/full: No space left"),
]


@pytest.mark.parametrize("place, said", FAILURES)
def test_what_cannot_be_written_is_said(
    place: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    with pytest.raises((OSError, CommandFailed)) as refused, replaced(place(tmp_path), "x") as file:
        file.write(b"after")
    assert said in str(refused.value)


def test_a_disk_that_is_full_is_said_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CommandFailed) as refused, replaced(tmp_path / "out", "x") as file:
        file.write(b"after")
    assert refused.value.message == f"{tmp_path / 'out.x.part'}: No space left on device"
    assert list(tmp_path.iterdir()) == []
