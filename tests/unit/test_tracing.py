"""What is sent of a span, what is taken of a request, and what it costs where nothing is traced."""

import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Status, StatusCode

from blocks import tracing
from blocks.settings import SettingsError, TracingSettings
from blocks.span_export import without_texts
from tests.support.canaries import find

CANARY = "canary/0f9a8b7c+6d5e4f3a=2b1c"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize("version", ["00", "01", "fe"])
@pytest.mark.parametrize("flags", ["00", "01", "03"])
def test_a_traceparent_of_w3c_is_taken(version: str, flags: str) -> None:
    assert tracing.is_traceparent(f"{version}-{TRACE}-{SPAN}-{flags}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01" * 1000,
        "00-" + "\u0661" * 32 + f"-{SPAN}-01",
    ],
)
def test_no_other_text_is(text: str) -> None:
    assert not tracing.is_traceparent(text)


def test_what_prefect_puts_into_a_span_is_sent_without_texts() -> None:
    """A task is called after a manifest, its error and its state quote one, and so does a label."""
    url = f"s3://{CANARY}/m.jsonl"
    event = Event("Failed", {"prefect.state.message": url, "prefect.state.type": "FAILED"})
    error = Event(
        "exception", {"exception.message": url, "exception.stacktrace": url, "exception.type": "E"}
    )
    attributes: dict[str, Any] = {
        "prefect.run.name": f"submit {url}",
        "prefect.tags": ["job_1", url],
        "prefect.run.id": "r",
        "a label": CANARY,
        "refinery.rows": 7,
    }
    span = ReadableSpan(
        f"submit {url}",
        attributes=attributes,
        events=[event, error],
        status=Status(StatusCode.ERROR, url),
    )
    assert find(CANARY, span.to_json().encode())
    sent = without_texts(span)
    assert not find(CANARY, sent.to_json().encode())
    assert sent.name == "submit …"
    assert sent.attributes == {
        "prefect.run.name": "submit …",
        "prefect.tags": ["job_1", "…"],
        "prefect.run.id": "r",
        "refinery.rows": 7,
    }
    assert [dict(each.attributes or {}) for each in sent.events] == [
        {"prefect.state.type": "FAILED"},
        {"exception.type": "E"},
    ]
    assert (sent.status.status_code, sent.status.description) == (StatusCode.ERROR, None)


@pytest.mark.parametrize(
    "environment, is_on",
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "True"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_opentelemetrys_own_variables_switch_it_on(
    environment: dict[str, str], is_on: bool
) -> None:
    assert TracingSettings.from_environment(environment).is_on is is_on


def test_a_collector_has_two_seconds_unless_its_variable_says_another_time() -> None:
    assert TracingSettings.from_environment(ENDPOINT).timeout_s == 2
    longer = ENDPOINT | {"OTEL_EXPORTER_OTLP_TIMEOUT": "10"}
    assert TracingSettings.from_environment(longer).timeout_s is None


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*next(iter(ENDPOINT.items())))
    monkeypatch.setitem(sys.modules, "blocks.span_export", None)
    with pytest.raises(SettingsError, match=r"refinery-jobs\[otel\]"):
        tracing.check()


def test_without_a_collector_the_api_imports_nothing_that_sends_spans() -> None:
    program = """
import sys
from api.app import create_app
from blocks import tracing
from blocks.settings import Settings
tracing.start("refinery-api")
create_app(Settings(database_url="", encryption_key="ab" * 32))
with tracing.span("nothing", job_id="job_1") as note:
    note(lines=1)
assert tracing.traceparent() is None
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "[]\n"


def test_a_collector_that_never_answers_holds_nothing_up() -> None:
    program = """
import time
from typing import Any
from blocks import tracing
tracing.start("refinery-api")
began_s = time.perf_counter()
for n in range(2_500):  # more than wait for being sent
    with tracing.span("request", number=n):
        pass
print(time.perf_counter() - began_s)
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}"}
        with subprocess.Popen(
            [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            took_s = float(process.stdout.readline())
            began_s = time.monotonic()
            assert process.wait(30) == 0
    ended_s = time.monotonic() - began_s
    assert took_s < 2  # 0.2 s; a request that waited for the collector would take two seconds
    assert (
        ended_s < 4
    )  # a second, and the end of the interpreter; OpenTelemetry's own bound is thirty
