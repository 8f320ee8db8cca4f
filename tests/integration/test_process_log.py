"""A process may write for ever, and nobody has to read: logs are made shorter, and words wait."""

import os
import threading
from errno import ENOSPC
from pathlib import Path

import pytest

from deployments.embedded import process_log
from deployments.embedded.process_log import ProcessLog
from deployments.embedded.teller import Teller


def test_nothing_waits_for_a_terminal_that_is_held() -> None:
    teller, held = Teller(), threading.Event()
    said: list[str] = []

    def say(line: str) -> None:
        held.wait()
        said.append(line)
        if line == "first":
            raise OSError(ENOSPC, os.strerror(ENOSPC))

    teller.start(say)
    for line in ("first", "second"):
        teller.say(line)
    assert said == []
    held.set()
    teller.flush()
    assert said == ["first", "second"]


def test_no_line_is_lost_when_a_log_is_made_shorter(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_log, "LOG_BYTES_MAX", 100)
    log = ProcessLog(data_dir / "logs" / "a.log")
    descriptor = log.open()
    lines = [f"line {n}\n" for n in range(100)]
    os.write(descriptor, "".join(lines[:70]).encode())
    log.rotate()
    os.write(descriptor, "".join(lines[70:80]).encode())
    log.rotate()
    os.write(descriptor, "".join(lines[80:]).encode())
    os.close(descriptor)
    kept = [log.path.with_suffix(".log.1").read_text(), log.path.read_text()]
    assert "".join(kept) == "".join(lines)
    assert log.tail() == "".join(lines[85:]).rstrip()


def test_a_log_that_cannot_be_copied_stays_as_it_is(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_log, "LOG_BYTES_MAX", 100)
    log = ProcessLog(data_dir / "logs" / "a.log")
    os.write(descriptor := log.open(), b"x" * 200)
    os.close(descriptor)
    monkeypatch.setattr(process_log, "_append_rest", _no_room)
    with pytest.raises(OSError, match="No space left"):
        log.rotate()
    assert log.path.stat().st_size == 200
    assert [path.name for path in (data_dir / "logs").iterdir()] == ["a.log"]


def _no_room(*_: object) -> None:
    raise OSError(ENOSPC, os.strerror(ENOSPC))
