"""What the command line says of a job that waits."""

import io
from typing import Any

import pytest
from rich.console import Console

from api.cli import output
from api.cli.watch import wait_sentence, waiting_stage

JOB: dict[str, Any] = {
    "status": "processing",
    "waiting_for": {
        "what": "store",
        "reason": "The store cannot be reached (EndpointConnectionError).",
        "since": "2026-11-28T04:40:00.123456Z",
        "tries": 7,
        "next_try_at": "2026-11-28T04:42:10Z",
        "gives_up_at": "2026-11-29T04:40:00.123456Z",
        "annotators": None,
    },
}


def waits(**changes: Any) -> dict[str, Any]:
    return JOB | {"waiting_for": JOB["waiting_for"] | changes}


def test_a_wait_is_a_sentence_with_its_reason_and_its_times() -> None:
    assert wait_sentence(JOB) == (
        "the store: The store cannot be reached (EndpointConnectionError). (since 2026-11-28 "
        "04:40:00Z, tried 7 times, next try 2026-11-28 04:42:10Z, gives up 2026-11-29 04:40:00Z)"
    )
    assert wait_sentence(waits(tries=1, next_try_at=None, gives_up_at=None)).endswith(
        "(since 2026-11-28 04:40:00Z, tried once)"
    )


def test_one_that_moves_with_every_try_is_said_without_it() -> None:
    later = waits(tries=8, next_try_at="2026-11-28T05:00:00Z")
    assert wait_sentence(JOB, with_tries=False) == wait_sentence(later, with_tries=False)


@pytest.mark.parametrize("job", [{"status": "processing"}, JOB | {"waiting_for": None}])
def test_a_job_that_waits_for_nothing_is_said_to_be_what_it_is(job: dict[str, Any]) -> None:
    assert (wait_sentence(job), waiting_stage(job)) == ("", "processing")


@pytest.mark.parametrize("what", ["store", "delivery", "prefect", "turn", "annotators"])
def test_each_wait_has_a_name(what: str) -> None:
    assert waiting_stage(waits(what=what)).startswith("processing, waits for ")


def test_it_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr("sys.stdout", written)
    console = Console(file=written, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(output, "Console", lambda **_: console)
    output.print_fields({"waiting_for": wait_sentence(JOB)})
    lines = written.getvalue().splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 80
