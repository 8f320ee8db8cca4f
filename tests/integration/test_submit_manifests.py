"""Recurring ETL under Prefect's own test server, against a real database and a real object store."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from prefect_aws import AwsCredentials, MinIOCredentials
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr, ValidationError

from blocks.prefect_blocks import (
    BLOCKS,
    ManifestSource,
    PlaceNotBound,
    RefineryService,
    ResultsDelivery,
    UnusableBlock,
)
from blocks.store import streams
from blocks.store.jobs import Job
from blocks.store.streams import Manifest, Stream
from flows import resources
from flows.deliver_job import deliver_job
from flows.process_job import process_job
from flows.resources import destination_of, manifest_of
from flows.submit_manifests import Find, LabelSpec, submit_manifests
from tests.integration.flow_world import Shop, run
from tests.manifests import make_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SPEC = LabelSpec(question="What is it?", options=["cat", "dog"])


class Etl:
    """An owner of a recurring stream, with a bucket and its block."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.block = f"source-{secrets.token_hex(4)}"
        credentials = AwsCredentials(
            aws_access_key_id=shop._address.access_key_id,
            aws_secret_access_key=SecretStr(shop._address.secret_access_key),
            region_name="us-east-1",
            aws_client_parameters=AwsClientParameters(endpoint_url=shop._address.endpoint_url),
        )
        credentials.save(self.block)
        saved: Any = AwsCredentials.load(self.block)
        ManifestSource(bucket_url=f"s3://{shop.bucket}", aws_credentials=saved).save(self.block)
        ResultsDelivery(url=f"s3://{shop.bucket}/out", compression="gzip").save(self.block)

    def run(self, **changes: Any) -> str:
        """What a run says at its end."""
        find = {"min_age_s": 0, "catch_up": True} | changes.pop("find", {})
        state: Any = submit_manifests(
            **{
                "customer": self.shop.customer_id,
                "block": self.block,
                "source": "in/",
                "label_spec": SPEC,
                "find": Find(**find),
            }
            | changes,
            return_state=True,
        )
        assert state.is_completed(), state
        return str(state.message)

    @contextmanager
    def bound(self, prefix: str) -> Iterator[None]:
        """The block is for what lies below `prefix` alone."""
        source: Any = ManifestSource.load(self.block)
        source.model_copy(update={"prefix": prefix}).save(self.block, overwrite=True)
        resources._bucket.cache_clear()
        yield
        resources._bucket.cache_clear()

    def jobs(self) -> list[dict[str, Any]]:
        query = "select * from jobs where customer_id = %s order by job_no"
        with self.shop.database.transaction() as tx:
            return tx.execute(query, [self.shop.customer_id]).fetchall()


@pytest.fixture
def etl(flow_shop: Shop) -> Etl:
    return Etl(flow_shop)


def test_new_manifests_become_jobs_once_and_are_read_with_the_blocks_credentials(etl: Etl) -> None:
    manifest = make_manifest(50)
    for name in ("in/a.jsonl", "in/b.jsonl"):
        etl.shop.put_as(name, manifest.data)
    assert etl.run(delivery=etl.block) == "2 submitted."
    assert etl.run(delivery=etl.block) == "no new manifests."
    first, second = etl.jobs()
    assert first["manifest_url"] == f"s3://{etl.shop.bucket}/in/a.jsonl"
    assert (first["credentials"], first["credentials_block"]) == (None, etl.block)
    assert (first["delivery_bucket"], first["delivery_prefix"]) == (etl.shop.bucket, "out")
    assert run(process_job, second["job_id"]).is_completed()
    assert etl.shop.job(second["job_id"]).total_tasks == 50


def test_another_version_of_a_manifest_is_another_job(etl: Etl) -> None:
    etl.shop.put_as("in/a.jsonl", make_manifest(5).data)
    etl.run()
    etl.shop.put_as("in/a.jsonl", make_manifest(6).data)
    assert etl.run() == "1 submitted."
    old, new = etl.jobs()
    # The first job is of a version that is gone, and not of the other one.
    state = run(process_job, old["job_id"])
    assert etl.shop.job(old["job_id"]).error_code == "manifest_changed", state
    assert run(process_job, new["job_id"]).is_completed()
    assert etl.shop.job(new["job_id"]).total_tasks == 6


def test_a_run_makes_no_more_jobs_than_its_bound_and_the_next_goes_on(etl: Etl) -> None:
    for n in range(5):
        etl.shop.put_as(f"in/{n}.jsonl", b"{}\n")
    bound = {"manifests_max": 2}
    assert etl.run(find=bound) == "2 submitted, 3 left: over the bound."
    assert etl.run(find=bound) == "2 submitted, 1 left: over the bound."
    assert etl.run(find=bound) == "1 submitted."
    assert len({job["manifest_url"] for job in etl.jobs()}) == 5


def test_what_may_still_be_written_or_was_there_before_is_left(etl: Etl) -> None:
    etl.shop.put_as("in/old.jsonl", b"{}\n")
    assert etl.run(find={"catch_up": False}) == "1 left: before the stream began."
    etl.shop.put_as("in/new.jsonl", b"{}\n")
    young = {"catch_up": False, "min_age_s": 60}
    assert etl.run(find=young) == "2 left: still young."
    with etl.shop.database.transaction() as tx:
        tx.execute("update streams set started_at = started_at - interval '1 hour'")
    assert etl.run(find={"catch_up": False}) == "2 submitted."


def test_a_dry_run_says_what_it_would_do_and_does_nothing(etl: Etl) -> None:
    etl.shop.put_as("in/a.jsonl", b"{}\n")
    assert etl.run(dry_run=True) == "Dry run: 1 would be submitted."
    assert etl.jobs() == []
    assert etl.run() == "1 submitted."


def test_streams_do_not_know_of_each_other(etl: Etl) -> None:
    etl.shop.put_as("in/a.jsonl", b"{}\n")
    assert etl.run(stream="cats") == "1 submitted."
    assert etl.run(stream="dogs") == "1 submitted."
    assert etl.run(stream="cats") == "no new manifests."


def test_slots_that_overlap_make_one_job_of_a_manifest(etl: Etl) -> None:
    stream, manifest = Stream(etl.shop.customer_id, "default"), Manifest("s3://bucket/a.jsonl", "1")
    with etl.shop.database.transaction() as tx:
        streams.begin(tx, stream, datetime.now(UTC))
    new = _new_job(etl)

    def submit(_: int) -> str | None:
        with etl.shop.database.transaction() as tx:
            return streams.submit(tx, stream, manifest, new, None)  # type: ignore[arg-type]

    with ThreadPoolExecutor(4) as pool:
        made = [job_id for job_id in pool.map(submit, range(12)) if job_id]
    assert len(made) == len(etl.jobs()) == 1


def _new_job(etl: Etl) -> Any:
    from flows.submit_manifests import JobOptions, new_job

    return new_job.fn(etl.shop.customer_id, etl.block, SPEC, None, JobOptions())


@pytest.mark.parametrize(
    "change, words",
    [
        ({"block": "missing"}, "There is no block refinery-manifest-source/missing"),
        ({"customer": "cust_missing"}, "There is no customer 'cust_missing'"),
        ({"source": "in/{day}/"}, "neither a prefix nor one with a single"),
        ({"delivery": "missing"}, "There is no block refinery-results-delivery/missing"),
    ],
)
def test_what_the_owner_has_to_mend_is_said(change: dict[str, str], words: str, etl: Etl) -> None:
    state: Any = submit_manifests(
        **{
            "customer": etl.shop.customer_id,
            "block": etl.block,
            "source": "in/",
            "label_spec": SPEC,
        }
        | change,
        return_state=True,
    )
    assert state.is_failed()
    assert words in str(state.message)


def submitted(etl: Etl) -> Job:
    """A job of the stream's, without a line, so that it is delivered as soon as it is read."""
    etl.shop.put_as("in/a.jsonl", b"\n")
    etl.run(delivery=etl.block)
    return etl.shop.job(etl.jobs()[0]["job_id"])


def test_a_block_opens_the_places_that_it_is_for_and_no_others(etl: Etl) -> None:
    job = submitted(etl)
    bucket = etl.shop.bucket
    with etl.bound(prefix="in"):
        assert manifest_of(job)[1].key == "in/a.jsonl"
        destination_of(job)
        for url in (f"s3://{bucket}/inner/a.jsonl", f"s3://{bucket}/a.jsonl", "s3://other/in/a"):
            with pytest.raises(PlaceNotBound):
                manifest_of(msgspec.structs.replace(job, manifest_url=url))
        target = job.delivery
        assert target is not None
        for change in ({"bucket": "other"}, {"prefix": "outer"}, {"prefix": ""}, {"type": "gcs"}):
            moved = msgspec.structs.replace(target, **change)
            with pytest.raises(PlaceNotBound):
                destination_of(msgspec.structs.replace(job, delivery=moved))


def test_a_delivery_that_the_block_is_not_for_is_refused_and_told(etl: Etl) -> None:
    job = submitted(etl)
    with etl.shop.database.transaction() as tx:  # past the API, and past `redeliver`
        query = "update jobs set delivery_bucket = 'operator-secret' where job_id = %s"
        tx.execute(query, [job.job_id])
    assert run(process_job, job.job_id).is_completed()
    assert not run(deliver_job, job.job_id).is_completed()
    after = etl.shop.job(job.job_id)
    assert (after.delivery_status, after.delivery_error_code) == ("failed", "place_not_bound")


def test_an_operators_secret_stands_in_no_job(etl: Etl) -> None:
    etl.shop.put_as("in/a.jsonl", b"{}\n")
    etl.run()
    assert etl.shop._address.secret_access_key not in str(etl.jobs())


# Blocks


def test_credentials_are_taken_from_each_kind_of_block(etl: Etl) -> None:
    address = etl.shop._address
    minio = MinIOCredentials(
        minio_root_user=address.access_key_id,
        minio_root_password=SecretStr(address.secret_access_key),
        aws_client_parameters=AwsClientParameters(endpoint_url=address.endpoint_url),
    )
    found = ManifestSource(bucket_url="s3://bucket", minio_credentials=minio).read_credentials()
    assert found is not None
    assert found.access_key_id == address.access_key_id  # type: ignore[union-attr]
    assert found.endpoint_url == address.endpoint_url  # type: ignore[union-attr]
    assert ManifestSource(bucket_url="gs://bucket").read_credentials() is None
    with pytest.raises(UnusableBlock, match="another store"):
        ManifestSource(bucket_url="gs://bucket", minio_credentials=minio).read_credentials()


@pytest.mark.parametrize("url", ["bucket", "https://bucket", "s3://", "s3://a b"])
def test_a_place_that_is_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="s3://bucket or gs://bucket"):
        ManifestSource(bucket_url=url)
    with pytest.raises(ValidationError, match="s3://bucket or gs://bucket"):
        ResultsDelivery(url=url)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_type_has_what_the_ui_shows(block: Any) -> None:
    assert block.get_description()
    assert block.__name__ in block.get_code_example()
    assert block.get_block_type_slug().startswith("refinery-")
    for name, field in block.model_fields.items():
        assert field.description, name


def test_a_service_keeps_its_key_to_itself() -> None:
    service = RefineryService(api_url="http://127.0.0.1:1", api_key=SecretStr("sk_canary"))
    assert "sk_canary" not in repr(service)
