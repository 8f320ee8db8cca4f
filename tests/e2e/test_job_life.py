"""From POST to the delivered objects, over S3 and over GCS, every line checked."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
import s3fs
from gcsfs.core import GCSFileSystem

from blocks.store import customers
from blocks.store.database import Database
from deployments.embedded.stack import Stack
from tests.support.checks import (
    OPTIONS,
    check_counters,
    check_delivery,
    check_errors,
    check_results,
    truth,
)
from tests.support.client import Annotator, Customer, wait_for
from tests.support.manifests import Manifest, make_manifest

pytestmark = pytest.mark.e2e

MakeAnnotator = Callable[[Callable[[dict[str, Any]], str]], Annotator]


def label_all(job_id: str, make_annotator: MakeAnnotator) -> None:
    """Two who know, one who guesses: two of three agree on the truth."""
    dice = random.Random(7)
    for look in (truth, lambda _: dice.choice(OPTIONS), truth):
        make_annotator(look).work(job_id)


def check_job(customer: Customer, job_id: str, manifest: Manifest) -> dict[str, Any]:
    job = customer.wait(job_id, "completed", "failed")
    assert job["error"] is None
    check_counters(job, manifest)
    check_results(customer.http.get(f"/v1/jobs/{job_id}/export").content, manifest)
    check_errors(customer.http.get(f"/v1/jobs/{job_id}/errors").content, manifest)
    return job


@pytest.mark.parametrize("name", ["plain.jsonl", "a b+c%20d#e?f/ünï.jsonl"])
def test_a_job_over_s3_ends_in_the_customers_bucket(
    name: str,
    customer: Customer,
    make_annotator: MakeAnnotator,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    manifest = make_manifest(3000, bad_share=0.02)
    s3.pipe_file(f"{s3_bucket}/{name}", manifest.data)
    job_id = customer.submit(
        manifest_url=f"s3://{s3_bucket}/{name}",
        credentials=s3_credentials,
        delivery={"type": "s3", "bucket": s3_bucket, "prefix": "out/labels/"},
        metadata={"order": "17"},
    )
    label_all(customer.wait(job_id, "processing", "failed")["job_id"], make_annotator)
    customer.wait_ingested(job_id, len(manifest.good) + len(manifest.bad))
    label_all(job_id, make_annotator)

    job = check_job(customer, job_id, manifest)
    assert job["delivery"]["status"] == "delivered"
    assert job["metadata"] == {"order": "17"}
    folder = f"{s3_bucket}/out/labels/{job_id}"
    objects = {p.rpartition("/")[2]: s3.cat_file(p) for p in s3.find(folder)}
    assert job["delivery"]["objects"] == len(objects)
    check_delivery(objects, manifest)


def test_a_paused_job_is_not_read_and_is_when_it_is_resumed(
    stack: Stack,
    store: Database,
    make_customer: Callable[[], Customer],
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    manifest = make_manifest(20)
    s3.pipe_file(f"{s3_bucket}/m.jsonl", manifest.data)
    asked = {"manifest_url": f"s3://{s3_bucket}/m.jsonl", "credentials": s3_credentials}
    paused, other = make_customer(), make_customer()
    with store.transaction() as tx:
        key = customers.add_admin_key(tx, "Ona")
    operator = Customer(stack.api_url, key).http
    where = f"/v1/operations/customers/{paused.customer_id}"
    with operator:
        operator.post(f"{where}/pause").raise_for_status()
        waits = paused.submit(**asked)
        other.wait_ingested(other.submit(**asked), 20)
        job = paused.job(waits)
        assert (job["status"], job["waiting_for"]["what"]) == ("accepted", "operator")
        assert job["paused_at"] == job["waiting_for"]["since"]
        operator.post(f"{where}/resume").raise_for_status()
    job = paused.wait_ingested(waits, 20)
    assert job["paused_at"] is None


def test_a_job_over_gcs_ends_in_the_customers_bucket(
    customer: Customer,
    make_annotator: MakeAnnotator,
    gcs: GCSFileSystem,
    gcs_bucket: str,
) -> None:
    manifest = make_manifest(2000, seed=2)
    gcs.pipe_file(f"{gcs_bucket}/in/manifest.jsonl", manifest.data)
    job_id = customer.submit(
        manifest_url=f"gs://{gcs_bucket}/in/manifest.jsonl",
        delivery={"type": "gcs", "bucket": gcs_bucket, "compression": "none"},
    )
    customer.wait_ingested(job_id, len(manifest.good) + len(manifest.bad))
    label_all(job_id, make_annotator)

    job = check_job(customer, job_id, manifest)
    assert job["delivery"]["status"] == "delivered"
    names = gcs.find(f"{gcs_bucket}/{job_id}")
    check_delivery({p.rpartition("/")[2]: gcs.cat_file(p) for p in names}, manifest)


def test_an_empty_manifest_is_a_completed_job_of_no_tasks(
    customer: Customer, s3: s3fs.S3FileSystem, s3_bucket: str, s3_credentials: dict[str, str]
) -> None:
    s3.pipe_file(f"{s3_bucket}/empty.jsonl", b"")
    job_id = customer.submit(
        manifest_url=f"s3://{s3_bucket}/empty.jsonl", credentials=s3_credentials
    )
    job = customer.wait(job_id, "completed", "failed")
    assert (job["status"], job["total_tasks"], job["manifest"]["bytes"]) == ("completed", 0, 0)
    assert customer.lines(job_id, "export") == []


def test_a_manifest_without_a_good_line_fails_and_says_why_of_each(
    customer: Customer, s3: s3fs.S3FileSystem, s3_bucket: str, s3_credentials: dict[str, str]
) -> None:
    s3.pipe_file(f"{s3_bucket}/bad.jsonl", b'{"data_url": "nowhere"}\n{"data_url": 1}\n')
    job_id = customer.submit(
        manifest_url=f"s3://{s3_bucket}/bad.jsonl",
        credentials=s3_credentials,
        delivery={"type": "s3", "bucket": s3_bucket},
    )
    job = customer.wait(job_id, "completed", "failed")
    assert (job["status"], job["total_tasks"], job["tasks_failed"]) == ("failed", 2, 2)
    assert job["error"]["code"] == "no_valid_lines"
    assert [e["line"] for e in customer.lines(job_id, "errors")] == [1, 2]


@pytest.mark.parametrize("ending, codec", [("gz", "gzip"), ("zst", "zstd")])
def test_a_compressed_manifest_is_read_and_its_bad_lines_can_be_mended_and_submitted_again(
    ending: str,
    codec: str,
    customer: Customer,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    manifest = make_manifest(20_000, bad_share=0.02)
    name = f"{s3_bucket}/m.jsonl.{ending}"
    s3.pipe_file(name, bytes(pa.compress(manifest.data, codec=codec, asbytes=True)))
    job_id = customer.submit(manifest_url=f"s3://{name}", credentials=s3_credentials)
    job = customer.wait_ingested(job_id, len(manifest.good) + len(manifest.bad))
    assert job["tasks_failed"] == len(manifest.bad)
    check_errors(customer.http.get(f"/v1/jobs/{job_id}/errors").content, manifest)

    raw = customer.http.get(f"/v1/jobs/{job_id}/errors?format=manifest").raise_for_status().content
    assert raw.splitlines() == [
        manifest.data[offset:].partition(b"\n")[0].removesuffix(b"\r")
        for _, offset, _ in manifest.bad
    ]
    mended = b"".join(b'{"data_url": "https://a.example.com/"}\n' for _ in raw.splitlines())
    s3.pipe_file(f"{s3_bucket}/mended.jsonl", mended)
    job_id = customer.submit(
        manifest_url=f"s3://{s3_bucket}/mended.jsonl", credentials=s3_credentials
    )
    assert customer.wait_ingested(job_id, len(manifest.bad))["tasks_failed"] == 0


def test_a_job_whose_tasks_all_fail_completes(
    customer: Customer,
    make_annotator: MakeAnnotator,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    s3.pipe_file(f"{s3_bucket}/m.jsonl", make_manifest(50, bad_share=0).data)
    job_id = customer.submit(
        manifest_url=f"s3://{s3_bucket}/m.jsonl",
        credentials=s3_credentials,
        consensus_threshold=2,
        label_spec={"question": "Which letter?", "options": list("abcd")},
    )
    wait_for("tasks", lambda: customer.job(job_id)["total_tasks"])
    for letter in "abcd":  # nobody agrees with anybody
        make_annotator(partial(_always, letter)).work(job_id)
    job = customer.wait(job_id, "completed")
    assert job["tasks_failed"] == job["total_tasks"] > 0
    assert customer.lines(job_id, "export") == []


def _always(answer: str, _: dict[str, Any]) -> str:
    return answer
