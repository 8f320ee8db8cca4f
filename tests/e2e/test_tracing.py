"""A job is one trace of OpenTelemetry, from the request that made it to the message that it is done."""

from collections.abc import Callable
from secrets import token_hex
from typing import Any

import pytest
import s3fs

from tests.support.checks import truth
from tests.support.client import Annotator, Customer
from tests.support.collector import Collector, Seen
from tests.support.endpoint import Endpoint, Received
from tests.support.manifests import make_manifest

pytestmark = pytest.mark.e2e

LINES = 6000


def test_a_jobs_spans_continue_the_trace_of_its_customer(
    collector: Collector,
    customer: Customer,
    endpoint: Endpoint,
    make_annotator: Callable[[Callable[[dict[str, Any]], str]], Annotator],
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    manifest = make_manifest(LINES, bad_share=0.02)
    s3.pipe_file(f"{s3_bucket}/m.jsonl", manifest.data)
    trace_id, span_id = token_hex(16), token_hex(8)
    customer.http.headers["traceparent"] = f"00-{trace_id}-{span_id}-01"
    job_id = customer.submit(
        manifest_url=f"s3://{s3_bucket}/m.jsonl",
        credentials=s3_credentials,
        delivery={"type": "s3", "bucket": s3_bucket, "prefix": "out"},
        callback_url=f"{endpoint.url}/traced",
    )
    del customer.http.headers["traceparent"]
    customer.wait_ingested(job_id, len(manifest.good) + len(manifest.bad))
    for _ in range(3):
        make_annotator(truth).work(job_id)
    customer.wait(job_id, "completed")

    def is_whole(spans: list[Seen]) -> bool:
        """Each process sends its own, so a parent may come after its children."""
        seen = [span for span in spans if span.trace_id == trace_id]
        are_there = {span_id, *(span.span_id for span in seen)}
        names = [span.name for span in seen]
        is_over = f"deliver {job_id}" in names and names.count("send webhook") == 2
        return is_over and {span.parent_id for span in seen} <= are_there

    ours = [span for span in collector.wait(is_whole) if span.trace_id == trace_id]
    by_id = {span.span_id: span for span in ours}

    def way(span: Seen) -> list[str]:
        """The names from the span up to the customer's own."""
        if span.parent_id == span_id:
            return [span.name, "customer's"]
        return [span.name, *way(by_id[span.parent_id])]

    ways = {" < ".join(way(span)) for span in ours}
    process = f"process {job_id} < launch run < POST /v1/jobs < customer's"
    deliver = f"deliver {job_id} < launch run < POST /v1/jobs < customer's"
    assert ways >= {
        process,
        f"read chunk < chunk 0 < {process}",
        f"commit chunk < chunk 0 < {process}",
        f"finish < {process}",
        deliver,
        f"write object < write results < {deliver}",
        f"write object < write bad lines < {deliver}",
        f"write manifest < write manifest < {deliver}",
        f"complete job < finish < {deliver}",
        "send webhook < POST /v1/jobs < customer's",
    }
    committed = [span for span in ours if span.name == "commit chunk"]
    assert sum(span["refinery.tasks"] for span in committed) == len(manifest.good)
    assert sum(span["refinery.bad_lines"] for span in committed) == len(manifest.bad)
    assert {span.service for span in ours} == {"refinery-api", "refinery-flows"}
    told: list[Received] = []
    while len(told) < 2:  # there may be messages of other tests' jobs
        told += [each for each in [endpoint.next()] if each.path.endswith("/traced")]
    assert {each.headers["traceparent"].split("-")[1] for each in told} == {trace_id}
    for body in collector.bodies:
        assert s3_bucket.encode() not in body
