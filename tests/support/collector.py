"""Takes spans by OTLP over HTTP, as a collector of OpenTelemetry does."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_WAIT_S = 30.0


class Seen(msgspec.Struct, frozen=True):
    """A span that was sent, with the ids of its trace, itself, its parent and what it is linked to."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: list[str]
    attributes: dict[str, Any]
    events: list[str]
    message: str

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]


class Collector:
    """A server that keeps each request as it came."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with outer._changed:
                    outer.bodies.append(body)
                    outer._changed.notify_all()
                self.send_response(200)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name there
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def spans(self) -> list[Seen]:
        return [span for body in list(self.bodies) for span in _spans(body)]

    def wait(self, is_there: Callable[[list[Seen]], bool]) -> list[Seen]:
        """All spans, once they are as wanted."""
        ends_s = time.monotonic() + _WAIT_S
        with self._changed:
            while not is_there(found := self.spans):
                left_s = ends_s - time.monotonic()
                assert left_s > 0, sorted({f"{span.service}: {span.name}" for span in found})
                self._changed.wait(left_s)
        return found


def _spans(body: bytes) -> list[Seen]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Seen(
            service=_values(resource.resource.attributes)["service.name"],
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            links=[link.span_id.hex() for link in span.links],
            attributes=_values(span.attributes),
            events=[event.name for event in span.events],
            message=span.status.message,
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
