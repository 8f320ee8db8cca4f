"""Recurring ETL under Prefect's own test server, against a real database and a real object store."""

import contextlib
import io
import json
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpx
import msgspec
import pytest
from prefect_aws import AwsCredentials, MinIOCredentials
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr, ValidationError

from api.cli.exits import CommandFailed
from api.signing import UrlSigner
from blocks.domain.model import Compression, TaskType, UnsignedReason
from blocks.prefect.api import PrefectApi
from blocks.prefect.blocks import (
    BLOCKS,
    ManifestSource,
    PlaceNotBound,
    RefineryService,
    ResultsDelivery,
    UnusableBlock,
)
from blocks.store import job_credentials, jobs, streams
from blocks.store.annotation import ClaimedTask, LabelledJob
from blocks.store.job_credentials import SealedCredentials
from blocks.store.jobs import Job
from blocks.store.streams import Manifest, Outcome, Stream
from deployments.cli import build
from flows.deliver_job import deliver_job
from flows.finding import slot_report
from flows.finding.stream_form import Find, JobOptions, LabelSpec
from flows.process_job import process_job
from flows.running import resources
from flows.running.resources import destination_of, manifest_of
from flows.submit_manifests import check_parameters, submit_manifests
from tests.support.flow_world import FlowShop, run
from tests.support.manifests import make_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

OVER = "left: for the next slot (find.manifests_max)"
SPEC = LabelSpec(question="What is it?", options=["cat", "dog", "other"])
BY_TWO = JobOptions(consensus_threshold=2)


class Etl:
    """An owner of a recurring stream, with a bucket and its block."""

    def __init__(self, shop: FlowShop) -> None:
        self.shop = shop
        self.block = f"source-{secrets.token_hex(4)}"
        self.save_source(shop._address.secret_access_key)
        ResultsDelivery(url=f"s3://{shop.bucket}/out", compression=Compression.GZIP).save(
            self.block
        )

    def save_source(self, secret_access_key: str) -> None:
        """Make the block of the source, or save it again with another key."""
        address = self.shop._address
        credentials = AwsCredentials(
            aws_access_key_id=address.access_key_id,
            aws_secret_access_key=SecretStr(secret_access_key),
            region_name="us-east-1",
            aws_client_parameters=AwsClientParameters(endpoint_url=address.endpoint_url),
        )
        credentials.save(self.block, overwrite=True)
        saved: Any = AwsCredentials.load(self.block)
        source = ManifestSource(bucket_url=f"s3://{self.shop.bucket}", aws_credentials=saved)
        source.save(self.block, overwrite=True)
        resources._bucket.cache_clear()

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


@pytest.fixture(scope="module")
def known_schemas() -> Iterator[None]:
    """Remember the schemas of blocks: Prefect makes a block's anew for each of its fields, a second each save."""
    with pytest.MonkeyPatch.context() as patch:
        for block in (AwsCredentials, ManifestSource, ResultsDelivery):
            patch.setattr(block, "model_json_schema", staticmethod(cache(block.model_json_schema)))
        yield


@pytest.fixture
def etl(known_schemas: None, flow_shop: FlowShop) -> Etl:
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
    assert etl.run(find=bound) == f"2 submitted, 3 {OVER}."
    assert etl.run(find=bound) == f"2 submitted, 1 {OVER}."
    assert etl.run(find=bound) == "1 submitted."
    assert len({job["manifest_url"] for job in etl.jobs()}) == 5


def test_what_may_still_be_written_or_was_there_before_is_left(etl: Etl) -> None:
    etl.shop.put_as("in/old.jsonl", b"{}\n")
    assert (
        etl.run(find={"catch_up": False})
        == "1 left: before the stream began (find.catch_up takes it)."
    )
    etl.shop.put_as("in/new.jsonl", b"{}\n")
    young = {"catch_up": False, "min_age_s": 60}
    assert etl.run(find=young) == "2 left: still young (find.min_age_s)."
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
            return streams.submit(tx, stream, manifest, None, new)  # type: ignore[arg-type]

    with ThreadPoolExecutor(4) as pool:
        made = [job_id for job_id in pool.map(submit, range(12)) if job_id]
    assert len(made) == len(etl.jobs()) == 1


def _new_job(etl: Etl) -> Any:
    return check_parameters.fn(
        etl.shop.customer_id,
        etl.block,
        "in/",
        Find(),
        label_spec=SPEC,
        delivery=None,
        options=JobOptions(),
    )[1]


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


def failure(etl: Etl, **changes: Any) -> str:
    """What a run says that an owner has to mend."""
    parameters: dict[str, Any] = {
        "customer": etl.shop.customer_id,
        "block": etl.block,
        "source": "in/",
        "label_spec": SPEC,
    }
    state: Any = submit_manifests(**(parameters | changes), return_state=True)
    assert state.is_failed()
    return str(state.message)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"options": {"callback_url": "not a url"}}, "options.callback_url: This must be an https URL"),
        ({"find": {"min_age": 3}}, "'min_age' is not known. Did you mean min_age_s?"),
    ],
)  # fmt: skip
def test_what_post_v1_jobs_would_refuse_is_refused(
    change: dict[str, Any], words: str, etl: Etl
) -> None:
    assert words in failure(etl, **change)
    assert etl.jobs() == []


# Its own results


def test_a_delivery_below_the_source_is_refused(etl: Etl) -> None:
    # Through another block, which is how an owner has two prefixes of one bucket.
    other = f"{etl.block}-other"
    ResultsDelivery(url=f"s3://{etl.shop.bucket}/in/labels/").save(other)
    assert "lies below the source 'in/' of the same bucket" in failure(etl, delivery=other)


def test_results_are_passed_over_wherever_they_lie(etl: Etl) -> None:
    """Two streams, of which one looks below where the other delivers: neither eats the other's."""
    etl.shop.put_as("in/a.jsonl", b'{"data_url": "https://a.example/1"}\n{}\n')
    etl.run(delivery=etl.block, stream="inner", options=BY_TWO)
    (job,) = etl.jobs()
    assert run(process_job, job["job_id"]).is_completed()
    etl.shop.label_all(job["job_id"])
    assert run(deliver_job, job["job_id"]).is_completed()
    assert any(name.endswith(".jsonl") for name in etl.shop.objects(job["job_id"]))
    assert etl.run(source="", stream="outer").startswith("1 submitted; 3 passed over: results")
    # Those of another Refinery, or of a job that is gone, have a manifest.json, and no row here.
    foreign = f"labels/job_{22 * 'a'}"
    etl.shop.put_as(f"{foreign}/errors.jsonl", b"{}\n")
    etl.shop.put_as(f"{foreign}/manifest.json", b"{}")
    mine = f"labels/job_{22 * 'b'}/errors.jsonl"  # only named like one
    etl.shop.put_as(mine, b"{}\n")
    assert etl.run(source="", stream="outer").startswith("1 submitted; 5 passed over: results")
    assert etl.jobs()[-1]["manifest_url"].endswith(mine)


# Manifests without a result


def fail_job(etl: Etl, job: dict[str, Any], code: str = "access_denied") -> None:
    with etl.shop.database.transaction() as tx:
        jobs.fail(tx, job["job_no"], code, "It was refused.")


def manifests(etl: Etl) -> list[tuple[str, int]]:
    """What became of each, with the attempts, newest first."""
    with etl.shop.database.transaction() as tx:
        found = streams.list_manifests(tx, etl.shop.customer_id, limit=100)
    return [(str(each.outcome), each.attempts) for each in found]


def resubmit(etl: Etl) -> list[str | None]:
    of = Stream(etl.shop.customer_id, "default")
    with etl.shop.database.transaction() as tx:
        rows = streams.list_manifests(tx, of.customer_id, outcomes=[Outcome.FAILED], limit=100)
        vault = resources.settings().vault()
        return [
            streams.resubmit(tx, of, Manifest(row.manifest_url, row.version), vault) for row in rows
        ]


def test_a_run_fails_until_every_manifest_has_a_result_or_is_ignored(
    etl: Etl, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(PrefectApi, "emit", lambda _, events: told.extend(events))
    for name in ("a", "b"):
        etl.shop.put_as(f"in/{name}.jsonl", b"{}\n")
    etl.run()
    first, second = etl.jobs()
    fail_job(etl, first)
    find = Find(min_age_s=0, catch_up=True)
    for _ in range(2):
        said = failure(etl, find=find)
        assert said.startswith("1 of 2 manifests have no result (access_denied): `refinery streams")
        assert said.endswith("; no new manifests.")
    assert etl.run(dry_run=True) == "Dry run: no new manifests."
    # One event for one failure, however many slots see it.
    assert {event["event"] for event in told} == {"refinery.stream.failed"}
    assert len({event["id"] for event in told}) == 1
    assert told[0]["payload"]["job_id"] == first["job_id"]
    fail_job(etl, second)
    failure(etl, find=find)
    assert len({event["id"] for event in told}) == 2
    with etl.shop.database.transaction() as tx:
        of = Stream(etl.shop.customer_id, "default")
        assert streams.ignore(tx, of, first["manifest_url"]) == 1
    assert len(resubmit(etl)) == 1
    assert manifests(etl) == [("open", 2), ("ignored", 1)]
    assert etl.run() == "no new manifests."


def test_a_manifest_is_tried_again_as_often_as_the_owner_says(etl: Etl) -> None:
    etl.shop.put_as("in/a.jsonl", b"{}\n")
    etl.run()
    find = {"retry_failed": 2}
    for attempt in (2, 3):
        fail_job(etl, etl.jobs()[-1])
        assert etl.run(find=find) == "1 tried again."
        assert manifests(etl) == [("open", attempt)]
        assert etl.run(find=find) == "no new manifests."
    fail_job(etl, etl.jobs()[-1])
    assert failure(etl, find=Find(min_age_s=0, retry_failed=2)).startswith(
        "1 of 1 manifests have no"
    )
    assert len(etl.jobs()) == 3
    # A person is not bound by that; the job is as it was.
    (job_id,) = resubmit(etl)
    *_, last, new = etl.jobs()
    assert new["job_id"] == job_id
    same = (
        "manifest_url",
        "manifest_version",
        "manifest_bytes",
        "credentials_block",
        "options",
        "priority",
    )
    assert {k: new[k] for k in same} == {k: last[k] for k in same}
    assert manifests(etl) == [("open", 4)]


def test_what_was_labelled_is_delivered_again_and_not_labelled_again(etl: Etl) -> None:
    job = submitted(etl)
    assert run(process_job, job.job_id).is_completed()
    with etl.shop.database.transaction() as tx:
        tx.execute("update jobs set delivery_bucket = 'away', block_delivers_to = 's3://away/out'")
    assert not run(deliver_job, job.job_id).is_completed()
    assert manifests(etl) == [("failed", 1)]
    etl.shop.s3.mkdir("away")
    assert resubmit(etl) == [job.job_id]
    assert run(deliver_job, job.job_id).is_completed()
    assert manifests(etl) == [("done", 2)]
    assert len(etl.jobs()) == 1


def test_a_manifest_that_was_replaced_counts_as_its_new_version(etl: Etl) -> None:
    etl.shop.put_as("in/a.jsonl", b"{}\n")
    etl.run()
    fail_job(etl, etl.jobs()[0], "manifest_changed")
    etl.shop.put_as("in/a.jsonl", b"{}\n\n")
    assert etl.run() == "1 submitted."
    assert manifests(etl) == [("open", 1), ("replaced", 1)]


def test_of_people_who_resubmit_at_once_one_does(etl: Etl) -> None:
    etl.shop.put_as("in/a.jsonl", b"{}\n")
    etl.run()
    fail_job(etl, etl.jobs()[0])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: resubmit(etl), range(8)))
    assert len(etl.jobs()) == 2
    assert manifests(etl) == [("open", 2)]


@pytest.fixture
def refinery() -> Callable[..., str]:
    """Runs a command of the operator in this process; what it printed."""

    def run(*arguments: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            build()(("streams", *arguments), exit_on_error=False, result_action="return_value")
        return out.getvalue()

    return run


def test_a_bad_day_ends_with_every_manifest_delivered_after_one_resubmit(
    etl: Etl, refinery: Callable[..., str]
) -> None:
    of = (etl.shop.customer_id, "default")
    line = b'{"data_url": "https://a.example/1"}\n'
    for name in ("changed", "undelivered", "unreadable"):
        etl.shop.put_as(f"in/{name}.jsonl", line)
    away = f"{etl.shop.bucket}-away"
    ResultsDelivery(url=f"s3://{away}/out").save(etl.block, overwrite=True)
    etl.run(delivery=etl.block, options=BY_TWO)
    changed, undelivered, unreadable = (job["job_id"] for job in etl.jobs())

    assert run(process_job, undelivered).is_completed()
    etl.shop.label_all(undelivered)
    run(deliver_job, undelivered)  # there is no such bucket
    etl.save_source("wrong")
    run(process_job, unreadable)
    etl.save_source(etl.shop._address.secret_access_key)
    etl.shop.put_as("in/changed.jsonl", b"something else")
    run(process_job, changed)
    etl.shop.put_as("in/changed.jsonl", line)  # the same version again, which no slot takes for new

    failed = json.loads(refinery("failed", *of, "--json"))
    codes = {each["manifest_url"].rpartition("/")[2]: each["error_code"] for each in failed}
    assert codes == {
        "changed.jsonl": "manifest_changed",
        "undelivered.jsonl": "bucket_not_found",
        "unreadable.jsonl": "invalid_credentials",
    }
    assert failure(etl, find=Find(min_age_s=0)).startswith("3 of 3 manifests have no result")
    (counts,) = json.loads(refinery("list", etl.shop.customer_id, "--json"))
    assert (counts["manifests"], counts["failed"]) == (3, 3)

    etl.shop.s3.mkdir(away)
    assert refinery("resubmit", *of).count("resubmitted") == 3
    assert len(etl.jobs()) == 5  # what was labelled is not labelled again
    for row in json.loads(refinery("show", *of, "--json")):
        assert row["outcome"] == "open"
        if row["job_id"] != undelivered:
            assert run(process_job, row["job_id"]).is_completed()
            etl.shop.label_all(row["job_id"])
        assert run(deliver_job, row["job_id"]).is_completed()
    assert manifests(etl) == [("done", 2)] * 3
    assert etl.run(delivery=etl.block) == "no new manifests."
    assert refinery("resubmit", *of) == ""


def test_a_manifest_that_is_unknown_is_not_ignored(etl: Etl, refinery: Callable[..., str]) -> None:
    url = "s3://bucket/in/a"
    with pytest.raises(CommandFailed, match=f"has no manifest '{url}'"):
        refinery("ignore", etl.shop.customer_id, "default", "--manifest", url)
    with pytest.raises(CommandFailed, match="has no stream 'other'"):
        refinery("resubmit", etl.shop.customer_id, "other")


def test_a_table_is_shown_where_something_has_changed(
    etl: Etl, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(slot_report, "create_table_artifact", lambda **table: shown.append(table))
    etl.shop.put_as("in/a.jsonl", b"{}\n")
    old = {"catch_up": False}
    for _ in range(3):
        etl.run(find=old)
    assert len(shown) == 1
    etl.run(dry_run=True)
    assert len(shown) == 2
    for n in range(300):
        etl.shop.put_as(f"in/{n}.jsonl", b"{}\n")
    etl.run(find={"manifests_max": 1})
    assert len(shown) == 3
    assert len(shown[-1]["table"]) == 101


# Nothing is passed over in silence


@pytest.mark.parametrize(
    "source, words",
    [
        ("day/*/", "in which * and ? stand for themselves"),
        ("/in/", "Write 'in/'."),
    ],
)
def test_a_source_that_can_find_nothing_is_refused(source: str, words: str, etl: Etl) -> None:
    etl.shop.put_as("day/1/a.jsonl", b"{}\n")
    etl.shop.put_as("in/a.jsonl", b"{}\n")
    assert words in failure(etl, source=source)


def test_what_is_passed_over_is_said(etl: Etl) -> None:
    assert etl.run() == "no new manifests; no key begins with 'in/'."
    for name in ("a.JSONL", "b.ndjson", "c.jsonl.GZ", "d.json", "_SUCCESS", ".e.crc"):
        etl.shop.put_as(f"in/{name}", b"{}\n")
    said = etl.run()
    assert said.startswith(
        "3 submitted; 1 passed over, such as in/d.json: no name ends with one of"
    )
    etl.shop.put_as("inner/a.jsonl", b"{}\n")
    said = etl.run(source="in")
    assert "the source 'in' has no slash at its end, so it takes inner/ too" in said


def submitted(etl: Etl) -> Job:
    """A job of the stream's, without a line, so that it is delivered as soon as it is read."""
    etl.shop.put_as("in/a.jsonl", b"\n")
    etl.run(delivery=etl.block)
    return etl.shop.job(etl.jobs()[0]["job_id"])


def find_to_sign(etl: Etl, job_id: str) -> SealedCredentials:
    with etl.shop.database.transaction() as tx:
        return job_credentials.find_to_sign(tx, [job_id])[job_id]


def reasons(etl: Etl, job_id: str, *urls: str) -> list[UnsignedReason | None]:
    """Why URLs of such tasks of a job are not signed; None for those that give `cat`."""
    job = LabelledJob(job_id, TaskType.IMAGE_CLASSIFICATION, "?", [])
    tasks = [ClaimedTask(url, url, None, datetime.now(UTC), job) for url in urls]
    sealed = {job_id: find_to_sign(etl, job_id)}
    signed = UrlSigner(resources.settings().vault(), "").sign(tasks, sealed)
    found = [signed[url] for url in urls]
    for each in found:
        assert isinstance(each, UnsignedReason) or httpx.get(each).content == b"cat"
    return [each if isinstance(each, UnsignedReason) else None for each in found]


def test_urls_are_signed_with_a_copy_of_the_block_in_its_place_until_the_job_has_ended(
    etl: Etl,
) -> None:
    bucket = etl.shop.bucket
    etl.shop.put_as("in/a.jsonl", b'{"data_url": "s3://%s/in/1.jpg"}' % bucket.encode())
    etl.shop.put_as("in/1.jpg", b"cat")
    urls = [f"s3://{bucket}/in/1.jpg", f"s3://{bucket}/inner/1.jpg", "s3://other/in/1.jpg"]
    elsewhere = UnsignedReason.OTHER_PLACE
    with etl.bound(prefix="in"):
        etl.run(options=JobOptions(sign_urls=True))
        (first,) = etl.jobs()
        assert find_to_sign(etl, first["job_id"]).credentials is None
        fail_job(etl, first)
        (again,) = resubmit(etl)
        assert again is not None
        assert run(process_job, again).is_completed()
        assert reasons(etl, again, *urls) == [None, elsewhere, elsewhere]
        etl.save_source("another key")  # and the copy stays
        assert reasons(etl, again, *urls) == [None, elsewhere, elsewhere]
    with etl.shop.database.transaction() as tx:
        assert not jobs.wipe_credentials(tx, etl.shop.job(again).job_no)
        jobs.cancel(tx, etl.shop.job(again).job_no)
    assert reasons(etl, again, urls[0]) == [UnsignedReason.NO_CREDENTIALS]
    ended = etl.shop.job(again)
    assert (ended.credentials, ended.credentials_block) == (None, etl.block)


def test_no_copy_of_a_block_is_kept_for_another_try_of_a_delivery(etl: Etl) -> None:
    etl.shop.put_as("in/a.jsonl", b"\n")
    etl.run(delivery=etl.block, options=JobOptions(sign_urls=True))
    job_id = etl.jobs()[0]["job_id"]
    assert run(process_job, job_id).is_completed()
    assert etl.shop.job(job_id).credentials is not None
    with etl.shop.database.transaction() as tx:
        tx.execute(
            "update jobs set delivery_bucket = 'nowhere', block_delivers_to = 's3://nowhere/out'"
        )
    assert not run(deliver_job, job_id).is_completed()
    refused = etl.shop.job(job_id)
    assert (refused.delivery_status, refused.credentials) == ("failed", None)


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
