"""A customer with many jobs holds up nobody else."""

from collections.abc import Callable

import pytest
import s3fs

from tests.support.client import Customer
from tests.support.manifests import make_manifest

pytestmark = pytest.mark.e2e

JOBS = 150


def test_a_customer_with_many_jobs_does_not_hold_up_one_with_a_single_job(
    make_customer: Callable[[], Customer],
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    manifest = make_manifest(10, bad_share=0)
    s3.pipe_file(f"{s3_bucket}/m.jsonl", manifest.data)
    body = {"manifest_url": f"s3://{s3_bucket}/m.jsonl", "credentials": s3_credentials}
    many, single = make_customer(), make_customer()
    job_ids = [many.submit(**body) for _ in range(JOBS)]
    single.wait_ingested(single.submit(**body), 10)
    assert many.job(job_ids[-1])["status"] == "accepted"
    for job_id in reversed(job_ids):
        many.http.post(f"/v1/jobs/{job_id}/cancel")  # those that are over stay as they are
