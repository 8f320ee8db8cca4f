"""Make spans of OpenTelemetry, where the environment names a collector; else import and do nothing.

A job's spans are one trace, from the request that made it to its last object, so its row has a
`traceparent` (W3C): https://www.w3.org/TR/trace-context/. Attributes are ids and counts. Prefect makes
spans of its runs by itself; `blocks.span_export` takes texts out of them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from blocks import logs
from blocks.settings import SettingsError, TracingSettings

logger = logs.get_logger("refinery.tracing")

LABEL = "__OTEL_TRACEPARENT"
"""The label of a Prefect run whose trace it continues."""

PROVIDER_NAME = "OTEL_PYTHON_TRACER_PROVIDER"
"""OpenTelemetry's variable; with `refinery` as its value, processes that are not ours have spans too."""

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_TRACER = "refinery"

_Attribute = int | str

# One provider for a process, as it is for OpenTelemetry; None while nothing is traced.
_provider: Any = None


class Note(Protocol):
    """Adds attributes to a span."""

    def __call__(self, **attributes: _Attribute) -> None: ...


def check() -> None:
    """Import what traces need, if the environment names a collector.

    Raises:
        SettingsError: the packages of the extra `otel` are missing.
    """
    if not TracingSettings.from_environment().is_on:
        return
    try:
        import blocks.span_export  # noqa: F401, PLC0415
    except ImportError as error:
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {error.name} is not installed: "
            "pip install 'refinery-jobs[otel]', or unset it."
        ) from error


def start(service: str) -> None:
    """Begin to trace this process under the name of `service`, if the environment names a collector.

    Raises:
        SettingsError: the packages of the extra `otel` are missing.
    """
    check()
    settings = TracingSettings.from_environment()
    if settings.is_on:
        from opentelemetry import trace  # noqa: PLC0415

        trace.set_tracer_provider(_make_provider(settings, service))


def stop() -> None:
    """Send what is left, within a second: where a signal ends the process, nothing is finalized."""
    if _provider is not None:
        _provider.shutdown()


def provider() -> Any:
    """Return the provider of a process that is not ours, such as `prefect flow-run execute`.

    OpenTelemetry calls this, an entry point, when the first span is wanted and `PROVIDER_NAME` is set.
    """
    from opentelemetry.trace import NoOpTracerProvider  # noqa: PLC0415

    settings = TracingSettings.from_environment()
    if settings.is_on:
        try:
            return _make_provider(settings, "refinery-flows")
        except ImportError as error:  # a run without a trace is better than none
            logger.warning("tracing.not_installed", package=error.name)
    return NoOpTracerProvider()


def _make_provider(settings: TracingSettings, service: str) -> Any:
    global _provider  # noqa: PLW0603
    from blocks import span_export  # noqa: PLC0415 - it imports the packages of an extra

    _provider = span_export.make_provider(settings.service_name or service, settings.timeout_s)
    return _provider


def is_on() -> bool:
    """Return whether spans of this process are sent."""
    return _provider is not None


@contextmanager
def span(
    name: str,
    *,
    parent: str | None = None,
    is_root: bool = False,
    is_server: bool = False,
    **attributes: _Attribute,
) -> Iterator[Note]:
    """Make a span of what is done inside; yield what adds attributes to it.

    It is in the trace of `parent`, a traceparent, or begins one with `is_root`; else it is a part of
    the span around it. In another trace than that, it has a link to it. An error that ends it is told by
    its type alone.
    """
    if not is_on():
        yield _note_nothing
        return
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.context import Context  # noqa: PLC0415

    around = trace.get_current_span().get_span_context()
    context = _context_of(parent) if parent else Context() if is_root else None
    links = [trace.Link(around)] if context is not None and around.is_valid else []
    with trace.get_tracer(_TRACER).start_as_current_span(
        name,
        context,
        trace.SpanKind.SERVER if is_server else trace.SpanKind.INTERNAL,
        links=links,
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        note(**attributes)
        try:
            yield note
        except Exception as error:
            note(**{"error.type": type(error).__name__})
            made.set_status(trace.StatusCode.ERROR)
            raise


def note(**attributes: _Attribute) -> None:
    """Add attributes, ids and counts, to the span that is under way; a name without a dot is ours."""
    if not is_on():
        return
    from opentelemetry import trace  # noqa: PLC0415

    made = trace.get_current_span()
    for name, value in attributes.items():
        made.set_attribute(name if "." in name else f"refinery.{name}", value)


def fail() -> None:
    """Mark the span that is under way as failed."""
    if is_on():
        from opentelemetry import trace  # noqa: PLC0415

        trace.get_current_span().set_status(trace.StatusCode.ERROR)


def traceparent() -> str | None:
    """Return the span that is under way as a W3C traceparent of 55 characters; None without one."""
    if not is_on():
        return None
    from opentelemetry import trace  # noqa: PLC0415

    made = trace.get_current_span().get_span_context()
    if not made.is_valid:
        return None
    return f"00-{made.trace_id:032x}-{made.span_id:016x}-{made.trace_flags & 1:02x}"


def is_traceparent(text: str) -> bool:
    """Return whether a text from outside is a traceparent of 55 characters."""
    return _TRACEPARENT.fullmatch(text) is not None


def _context_of(parent: str) -> Any:
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    return TraceContextTextMapPropagator().extract({"traceparent": parent}, Context())


def _note_nothing(**attributes: _Attribute) -> None:
    """Take attributes where nothing is traced."""
