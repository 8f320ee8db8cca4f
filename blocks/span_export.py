"""Send spans to a collector by OTLP: in batches, by a thread, without any text that may be a customer's.

Importing this needs the extra `otel`. `blocks.tracing` imports it where a collector is set.
"""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from multiprocessing.util import Finalize

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status
from opentelemetry.util.types import Attributes, AttributeValue

# How long a process waits at its end for a collector to take its last spans.
_STOP_S = 1.0
# Before the finalizers of Prefect's and our own threads and processes.
_FIRST = 100

# What is sent is a closed list: the message of a state or of an error may quote the name of a customer's
# object, and a label of Prefect's may be anything.
_SENT = re.compile(
    r"refinery\..+|http\.(request\.method|route|response\.status_code)|(error|exception)\.type"
    r"|prefect\.(run|flow|deployment|worker|work-pool)\..+|prefect\.tags|prefect\.state\.(type|name|id)"
)
# A task of Prefect is called after the manifest that it submits.
_URL = re.compile(r"\S*://.*", re.DOTALL)


def make_provider(service: str, timeout_s: float | None) -> TracerProvider:
    """Return a provider whose spans are sent, the last ones when the process ends.

    The address of the collector, headers, sampler and the rest are OpenTelemetry's own variables.
    """
    resource = Resource.create(
        {"service.name": service, "service.version": version("refinery-jobs")}
    )
    # Python's `atexit` is not called in processes of multiprocessing, which our runs are.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(_Batches(_WithoutTexts(OTLPSpanExporter(timeout=timeout_s))))
    Finalize(None, provider.shutdown, exitpriority=_FIRST)
    return provider


class _Batches(BatchSpanProcessor):
    """Batches whose end does not wait for a collector that does not answer."""

    def shutdown(self) -> None:
        """Send what is left within a second; OpenTelemetry's own method waits for up to thirty."""
        self._batch_processor.shutdown(timeout_millis=round(1000 * _STOP_S))


class _WithoutTexts(SpanExporter):
    """Hands ids and counts on, and drops anything else that a span may have."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._inner.export([without_texts(each) for each in spans])

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


def without_texts(span: ReadableSpan) -> ReadableSpan:
    """Return the span with those attributes alone that are ids and counts, and without any message."""
    return ReadableSpan(
        name=_cut(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_ids(span.attributes),
        events=[Event(each.name, _ids(each.attributes), each.timestamp) for each in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _ids(attributes: Attributes) -> Mapping[str, AttributeValue]:
    found = attributes or {}
    return {name: _value(value) for name, value in found.items() if _SENT.fullmatch(name)}


def _value(value: AttributeValue) -> AttributeValue:
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, Sequence):
        return [_cut(str(each)) for each in value]
    return value


def _cut(text: str) -> str:
    return _URL.sub("…", text)
