"""Deliveries to stores that lack something: what is no part of the result does not hold it up."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec
import pytest

from api.cli.verify import check_folder
from blocks.buckets.uploads import HashedFile, S3Upload
from blocks.domain.model import JobStatus
from blocks.secrets.credentials import S3Credentials
from deployments.embedded.object_stores import ObjectStoreAddress
from flows import deliver_job as module
from flows.deliver_job import deliver_job
from flows.process_job import process_job
from tests.support.faulty_store import Fault, FaultyStore, Play, Refusal, Request
from tests.support.flow_world import FlowShop, run
from tests.support.manifests import make_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

NOT_IMPLEMENTED = Refusal(501, "NotImplemented")


def is_conditional(request: Request) -> bool:
    return "if-none-match" in request.headers


def is_of_uploads(request: Request) -> bool:
    return request.method == "GET" and "uploads" in request.target


def is_listing(request: Request) -> bool:
    return "list-type=2" in request.target


@pytest.fixture
def proxy(object_store: ObjectStoreAddress) -> Iterator[FaultyStore]:
    with FaultyStore(object_store.endpoint_url) as found:
        yield found


@pytest.fixture
def shop(flow_shop: FlowShop) -> FlowShop:
    return flow_shop


def settled(shop: FlowShop, proxy: FaultyStore) -> str:
    """Return a job that is due to be delivered through the proxy."""
    shop.put(make_manifest(20).data)
    address = shop._address
    credentials = S3Credentials(
        access_key_id=address.access_key_id,
        secret_access_key=address.secret_access_key,
        region="us-east-1",
        endpoint_url=proxy.url,
    )
    job_id = shop.submit(credentials=msgspec.json.encode(credentials))
    assert run(process_job, job_id).is_completed()
    shop.label_all(job_id)
    return job_id


def check_delivered(shop: FlowShop, job_id: str, *, conditional_put: bool) -> None:
    assert run(deliver_job, job_id).is_completed()
    job = shop.job(job_id)
    assert (job.status, job.delivery_status) == (JobStatus.COMPLETED, "delivered")
    assert check_folder(shop.s3, f"{shop.bucket}/out/{job_id}").whole
    manifest = json.loads(shop.objects(job_id)["manifest.json"])
    assert manifest["conditional_put"] is conditional_put


def test_a_store_without_conditional_puts_is_delivered_to(
    shop: FlowShop, proxy: FaultyStore
) -> None:
    job_id = settled(shop, proxy)
    proxy.always(NOT_IMPLEMENTED, is_conditional)
    check_delivered(shop, job_id, conditional_put=False)


def heed_no_conditions(shop: FlowShop, proxy: FaultyStore) -> None:
    """Have a conditional PUT replace what stands, as it does where the header is not known."""

    def remove(request: Request) -> None:
        if is_conditional(request):
            path = request.target.partition("?")[0].removeprefix("/")
            shop.s3.call_s3("delete_object", Bucket=shop.bucket, Key=path.partition("/")[2])

    proxy._choose = remove


def test_so_is_one_that_takes_no_notice_of_conditions(shop: FlowShop, proxy: FaultyStore) -> None:
    job_id = settled(shop, proxy)
    heed_no_conditions(shop, proxy)
    check_delivered(shop, job_id, conditional_put=False)


def test_a_store_that_heeds_conditions_keeps_what_it_has(
    shop: FlowShop, proxy: FaultyStore
) -> None:
    """It is asked twice, and writes once."""
    job_id = settled(shop, proxy)
    check_delivered(shop, job_id, conditional_put=True)
    assert sum(is_conditional(request) for request in proxy.requests) == 2


@pytest.mark.parametrize("matches", [is_of_uploads, is_listing])
@pytest.mark.parametrize(
    "fault",
    [
        NOT_IMPLEMENTED,
        Refusal(403, "AccessDenied"),
        Fault.INTERNAL_ERROR,
        Fault.RESET,
        Fault.BAD_GATEWAY,
    ],
)
def test_tidying_up_that_fails_holds_no_delivery_up(
    shop: FlowShop, proxy: FaultyStore, matches: Callable[[Request], bool], fault: Play
) -> None:
    job_id = settled(shop, proxy)
    proxy.always(fault, matches)
    check_delivered(shop, job_id, conditional_put=True)
    assert proxy.played


@pytest.mark.parametrize("step", ["partNumber=", "uploadId="])
def test_an_upload_that_somebody_else_has_ended_is_begun_again(
    shop: FlowShop, proxy: FaultyStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A twin that has delivered tidies up, and what is still being written is gone."""
    monkeypatch.setattr(S3Upload, "write", write_in_parts)
    job_id = settled(shop, proxy)
    ended: list[str] = []

    def end_once(request: Request) -> None:
        method = "PUT" if step == "partNumber=" else "POST"
        if not ended and request.method == method and step in request.target:
            ended.append(request.target)
            path, _, query = request.target.partition("?")
            shop.s3.call_s3(
                "abort_multipart_upload",
                Bucket=shop.bucket,
                Key=unquote(path).removeprefix("/").partition("/")[2],
                UploadId=parse_qs(query)["uploadId"][0],
            )

    proxy._choose = end_once
    check_delivered(shop, job_id, conditional_put=True)
    assert ended


def write_in_parts(upload: S3Upload, data: Any) -> int:
    """Send all at once as parts, however little it is."""
    upload._send(bytes(data))
    return HashedFile.write(upload, data)


def test_what_a_store_never_does_is_told_and_not_tried_again(
    shop: FlowShop, proxy: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.write_results, "retry_delay_seconds", 0.05)
    job_id = settled(shop, proxy)
    proxy.always(NOT_IMPLEMENTED, lambda request: request.method == "PUT")
    assert run(deliver_job, job_id).is_failed()
    job = shop.job(job_id)
    assert (job.status, job.delivery_status) == (JobStatus.COMPLETED, "failed")
    assert job.delivery_error_code == "not_supported_by_store"
    assert len(proxy.played) == 1
