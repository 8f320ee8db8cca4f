"""Logs have an event and fields, in either format, and never the values of variables."""

import json
import logging
from collections.abc import Iterator

import pytest
import uvicorn

from blocks import logs
from blocks.logs import LogFormat

SECRET = "canary-0f9a8b7c"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_of_json_has_the_event_and_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogFormat.JSON)
    logger = logs.get_logger("refinery.test").bind(job_id="job_1")
    logger.info("run.started", launches=2)
    logger.debug("run.details")
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert found.pop("timestamp").endswith("Z")
    assert found == {
        "event": "run.started",
        "job_id": "job_1",
        "launches": 2,
        "level": "info",
        "logger": "refinery.test",
    }


@pytest.mark.parametrize("form", LogFormat)
def test_what_is_logged_stays_in_its_line(
    form: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(form)
    forged = 'a"}\n{"event": "key.made"}\r\x1b[2J\x00'
    logs.get_logger("refinery.test").info("run.started", key_name=forged)
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert not {"\x1b", "\r", "\x00"} & {*said}


def test_text_says_the_same_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogFormat.TEXT)
    logs.get_logger("refinery.test").warning("run.postponed", job_id="job_1", reason="not there")
    text = capsys.readouterr().err
    assert "[warning] run.postponed [refinery.test] job_id=job_1 reason='not there'" in text
    assert "\x1b" not in text


def test_what_others_log_has_the_same_format(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("uvicorn.error")
    # Prefect, which other tests import, switches it off.
    monkeypatch.setattr(logger, "disabled", False)
    uvicorn.Config("api.app:from_environment")  # sets up its loggers
    logs.configure(LogFormat.JSON)
    logger.info("Started server process [%d]", 7, extra={"color_message": "\x1b[36mStarted"})
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "Started server process [7]"
    assert "Started" not in line.replace("Started server process", "")


@pytest.mark.parametrize("is_asked_for", [True, False])
def test_requests_are_logged_where_uvicorn_is_asked_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_asked_for: bool
) -> None:
    access = logging.getLogger("uvicorn.access")
    monkeypatch.setattr(access, "disabled", False)
    uvicorn.Config("api.app:from_environment", access_log=is_asked_for)  # sets up its loggers
    logs.configure(LogFormat.TEXT)
    assert access.hasHandlers() == is_asked_for  # what uvicorn asks before it writes a line
    if is_asked_for:
        access.info("GET /health")
        assert "GET /health" in capsys.readouterr().err


@pytest.mark.parametrize("log_format", LogFormat)
def test_a_traceback_comes_without_the_values_of_variables(
    log_format: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(log_format)

    def fail(secret: str) -> None:
        assert secret
        raise ValueError("It failed.")

    try:
        fail(SECRET)
    except ValueError:
        logs.get_logger("refinery.test").exception("run.failed", job_id="job_1")
    text = capsys.readouterr().err
    assert "It failed." in text
    assert "Traceback" in text
    assert SECRET not in text


def test_fields_are_not_lost_where_nobody_has_configured_logs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    logs.get_logger("refinery.test").warning("prefect.unavailable", reason="out")
    assert caplog.messages == ["prefect.unavailable reason=out"]


def test_fields_stand_in_the_message_where_a_logger_takes_only_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    logger = logs.wrap(logging.getLogger("somebodys"), job_id="job_1")
    logger.info("chunk.committed", chunk=3, reason="100 % of it")
    assert caplog.messages == ["chunk.committed chunk=3 job_id=job_1 reason='100 % of it'"]
