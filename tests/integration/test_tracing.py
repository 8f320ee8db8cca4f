"""Which trace a span belongs to, where many jobs share a run, and which requests have one."""

import gzip
from collections.abc import Iterator

import pytest
from litestar.testing import TestClient
from opentelemetry import trace
from opentelemetry.util._once import Once

from blocks import tracing
from blocks.settings import Settings
from flows.process_job import process_job
from flows.small_jobs import small_jobs
from tests.support.api_world import CREDENTIALS, JOB_BODY, Api, make_app
from tests.support.collector import Collector, Seen
from tests.support.fake_prefect import FakePrefect
from tests.support.flow_world import FlowShop, run
from tests.support.manifests import make_manifest
from tests.support.store_shop import Shop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SPAN = "00f067aa0ba902b7"


class Traced:
    """The process of the tests, while it sends spans."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def spans(self) -> list[Seen]:
        tracing._provider.force_flush()
        return self._collector.spans


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    """OpenTelemetry has one provider for all of a process, which is there for this test alone."""
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(tracing, "_provider", None)
    tracing.start("refinery-test")
    yield Traced(collector)
    tracing._provider.shutdown()
    collector.stop()


def traceparent(trace_id: str) -> str:
    return f"00-{trace_id}-{SPAN}-01"


def test_jobs_that_share_a_run_keep_their_own_traces(flow_shop: FlowShop, traced: Traced) -> None:
    flow_shop.put(make_manifest(10).data)
    traces = {f"{n:032x}": flow_shop.submit(traceparent=traceparent(f"{n:032x}")) for n in (1, 2)}
    state = run(small_jobs, next(iter(traces.values())))
    assert state.message == "2 done."
    spans = traced.spans()
    (of_run,) = [span for span in spans if span.attributes.get("prefect.run.type") == "flow"]
    assert of_run.trace_id not in traces
    for trace_id, job_id in traces.items():
        (work,) = [span for span in spans if span.parent_id == SPAN and span.trace_id == trace_id]
        assert (work.name, work["refinery.job_id"], work.links) == (
            "process job",
            job_id,
            [of_run.span_id],
        )
        inside = [span.name for span in spans if span.parent_id == work.span_id]
        assert inside == ["read chunk", "commit chunk"]


def test_chunks_of_a_compressed_manifest_are_committed_within_their_task(
    flow_shop: FlowShop, traced: Traced
) -> None:
    manifest = make_manifest(1000)
    flow_shop.put_as("m.jsonl.gz", gzip.compress(manifest.data))
    job_id = flow_shop.submit(manifest_url=f"s3://{flow_shop.bucket}/m.jsonl.gz")
    assert run(process_job, job_id).type == "COMPLETED"
    spans = traced.spans()
    (task,) = [span for span in spans if span.name == "all chunks, in order"]
    committed = [span for span in spans if span.name == "commit chunk"]
    assert len(committed) > 1
    assert {(span.trace_id, span.parent_id) for span in committed} == {
        (task.trace_id, task.span_id)
    }


def test_a_request_continues_a_valid_trace_and_begins_one_otherwise(
    settings: Settings, shop: Shop, prefect: FakePrefect, traced: Traced
) -> None:
    body = JOB_BODY | {"credentials": CREDENTIALS}
    theirs = "4bf92f3577b34da6a3ce929d0e0e4736"
    twice = [("traceparent", traceparent(theirs)), ("traceparent", traceparent(theirs))]
    with TestClient(make_app(settings)) as client:
        api = Api(client, shop)
        job_ids = [
            client.post("/v1/jobs", json=body, headers=[*api.customer.items(), *headers]).json()[
                "job_id"
            ]
            for headers in (
                [("traceparent", traceparent(theirs))],
                [("traceparent", "00-1-2-03")],
                twice,
                [],
            )
        ]
        client.post("/v1/jobs", json={}, headers=api.customer)
        client.get(f"/v1/jobs/{job_ids[0]}", headers=api.customer)
        asks = {"traceparent": traceparent("a" * 32)}
        client.get(f"/v1/jobs/{job_ids[0]}", headers=api.customer | asks)
        client.get("/health/live", headers=asks)
        client.post("/v1/jobs", json=body, headers={"Authorization": "Bearer sk_wrong"} | asks)
    spans = [span for span in traced.spans() if span.name.startswith(("GET ", "POST "))]
    made = [
        (s.name, s.attributes.get("refinery.job_id"), s["http.response.status_code"]) for s in spans
    ]
    assert made == [
        *(("POST /v1/jobs", job_id, 202) for job_id in job_ids),
        ("POST /v1/jobs", None, 400),
        ("GET /v1/jobs/{job_id}", job_ids[0], 200),
    ]
    continued, *others = spans[:4]
    assert (continued.trace_id, continued.parent_id) == (theirs, SPAN)
    assert {span.parent_id for span in others} == {""}
    assert len({span.trace_id for span in spans[:4]}) == 4
    assert {shop.job(job_id).traceparent for job_id in job_ids} == {
        f"00-{span.trace_id}-{span.span_id}-01" for span in spans[:4]
    }
