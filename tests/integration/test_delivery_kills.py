"""Deliverers that are killed at any instant, and two at once: one delivery, whole, and nothing left behind."""

import json
import multiprocessing
import os
import random
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import boto3
import botocore.config
import msgspec
import pytest
import s3fs

from api.cli.verify import check_folder
from blocks.domain.object_urls import StoreType
from blocks.secrets.credentials import S3Credentials
from blocks.store.jobs import DeliveryTarget, Job
from deployments.embedded.object_stores import ObjectStoreAddress
from flows import deliver_job as module
from flows.running.policy import RETRY
from tests.support.s3_files import open_s3
from tests.support.servers import KEY
from tests.support.store_shop import Shop, make_chunk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

# 100 for the record of an issue; each takes three seconds.
KILLS = int(os.environ.get("DELIVERY_KILLS", "4"))
ROWS = 40_000
STEPS = [
    "begin_delivery", "find_delivery", "write_results", "write_bad_lines", "write_manifest", "tidy",
    "finish_delivery", "refuse_delivery",
]  # fmt: skip


def deliver(environment: Mapping[str, str], job_id: str) -> None:
    """Run the flow in a process of its own, with plain functions as its tasks, tried again by the same rule."""
    os.environ.update(environment)
    for step in STEPS:
        setattr(module, step, RETRY.wraps(getattr(module, step).fn))
    state = module.deliver_job.fn(job_id)
    assert state.is_completed(), state.message


def deliver_in_turns(
    environment: Mapping[str, str], job_id: str, wrote: Any, may_go_on: Any
) -> None:
    """Deliver, and wait between the results and the rest."""
    write = module.write_bad_lines.fn

    def wait_and_write(*arguments: Any) -> Any:
        wrote.set()
        assert may_go_on.wait(60)
        return write(*arguments)

    setattr(module.write_bad_lines, "fn", wait_and_write)  # noqa: B010 - the type checker knows better
    deliver(environment, job_id)


@dataclass
class World:
    """A job of many rows, and the bucket that it is delivered to again and again."""

    shop: Shop
    job: Job
    s3: s3fs.S3FileSystem
    client: Any
    bucket: str
    environment: dict[str, str]
    context: Any

    def begin_anew(self, **changes: Any) -> str:
        """Let the delivery be due, to a folder of its own."""
        prefix = secrets.token_hex(4)
        self.shop.run(
            "update jobs set status = 'processing', completed_at = null, delivery_status = 'pending', "
            "delivery_prefix = %s, credentials = %s, delivery_part_bytes = null where job_no = %s",
            prefix, self.job.credentials, self.job.job_no,
        )  # fmt: skip
        self.shop.run("delete from delivered_objects where job_no = %s", self.job.job_no)
        for column, value in changes.items():
            self.shop.run(
                f"update jobs set {column} = %s where job_no = %s", value, self.job.job_no
            )
        return f"{self.bucket}/{prefix}/{self.job.job_id}"

    def start(self) -> BaseProcess:
        process: BaseProcess = self.context.Process(
            target=deliver, args=(self.environment, self.job.job_id)
        )
        process.start()
        return process

    def start_in_turns(self) -> tuple[BaseProcess, Any]:
        """Return a deliverer that has written the results, and the event for which it waits."""
        wrote, may_go_on = self.context.Event(), self.context.Event()
        process: BaseProcess = self.context.Process(
            target=deliver_in_turns, args=(self.environment, self.job.job_id, wrote, may_go_on)
        )
        process.start()
        assert wrote.wait(60)
        return process, may_go_on

    def finish(self) -> None:
        process = self.start()
        process.join(60)
        assert process.exitcode == 0

    def check(self, folder: str) -> None:
        """Whole, every row once, and nothing left that would be paid for."""
        report = check_folder(self.s3, folder)
        assert report.problems == []
        found = [
            row["line"]
            for path in self.s3.glob(f"{folder}/part-*.jsonl")
            for row in map(json.loads, self.s3.cat_file(path).splitlines())
        ]
        if found:
            assert sorted(found) == list(range(1, ROWS + 1))
        assert report.rows == ROWS + 1
        listed = self.client.list_multipart_uploads(Bucket=self.bucket)
        assert listed.get("Uploads", []) == []
        job = self.shop.job(self.job)
        assert (job.status, job.delivery_status) == ("completed", "delivered")


@pytest.fixture(scope="module")
def context() -> Any:
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([__name__, "flows.deliver_job"])
    return found


@pytest.fixture
def world(
    shop: Shop, database_url: str, object_store: ObjectStoreAddress, context: Any
) -> Iterator[World]:
    credentials = S3Credentials(
        access_key_id=object_store.access_key_id,
        secret_access_key=object_store.secret_access_key,
        region="us-east-1",
        endpoint_url=object_store.endpoint_url,
    )
    s3 = open_s3(object_store)
    client = boto3.client(
        "s3",
        endpoint_url=object_store.endpoint_url,
        aws_access_key_id=object_store.access_key_id,
        aws_secret_access_key=object_store.secret_access_key,
        region_name="us-east-1",
        config=botocore.config.Config(s3={"addressing_style": "path"}),
    )
    bucket = f"kills-{secrets.token_hex(4)}"
    s3.mkdir(bucket)
    job = shop.processing(
        make_chunk(ROWS, bad=1),
        consensus_threshold=2,
        credentials=msgspec.json.encode(credentials),
        delivery=DeliveryTarget(StoreType.S3, bucket, ""),
    )
    for _ in range(2):
        annotator = shop.annotator()
        while shop.answer(annotator, "cat", 500):
            pass
    environment = {
        "REFINERY_DATABASE_URL": database_url,
        "ASG_ENCRYPTION_KEY": KEY,
        "REFINERY_EGRESS_ALLOW": "127.0.0.1",
        "REFINERY_PART_BYTES_MAX": "6000000",
    }
    yield World(shop, shop.job(job), s3, client, bucket, environment, context)
    client.close()


def test_a_delivery_whose_deliverers_are_killed_at_any_instant_ends_whole(world: World) -> None:
    whole_s = 0.0
    for _ in range(2):  # the second is quicker, as all that follow are
        folder = world.begin_anew()
        began_s = time.monotonic()
        world.finish()
        whole_s = time.monotonic() - began_s
        world.check(folder)
    instants = random.Random(5)
    killed = 0
    while killed < KILLS:
        folder = world.begin_anew()
        # As often as not a twin goes on.
        twin = world.start() if killed % 2 else None
        process = world.start()
        process.join(instants.uniform(0, whole_s))
        if process.exitcode is None:
            killed += 1
            process.kill()
            process.join()
            # Who sees the manifest sees everything, also while nobody has said that it is done.
            if world.s3.exists(f"{folder}/manifest.json"):
                assert check_folder(world.s3, folder).problems == []
        if twin:
            twin.join(60)
            assert twin.exitcode == 0
        world.finish()
        world.check(folder)


def test_what_a_killed_deliverer_left_in_another_layout_is_removed(world: World) -> None:
    folder = world.begin_anew()
    process = world.start()
    deadline = time.monotonic() + 30
    while not world.s3.exists(f"{folder}/part-00001.jsonl"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    world.shop.run("update jobs set delivery_format = 'parquet', delivery_compression = 'zstd'")
    world.finish()
    names = {path.rpartition("/")[2] for path in world.s3.find(folder)}
    assert not any(name.startswith("part-") and name.endswith("jsonl") for name in names)
    world.check(folder)


def test_a_delivery_that_stands_is_taken_for_done_though_its_layout_was_another(
    world: World,
) -> None:
    folder = world.begin_anew()
    world.finish()
    before = {path: world.s3.info(path)["ETag"] for path in world.s3.find(folder)}
    # As if its deliverer had been killed before the commit, and started again with another setting.
    prefix = folder.split("/")[1]
    world.begin_anew(delivery_prefix=prefix)
    world.environment["REFINERY_PART_BYTES_MAX"] = "5500000"
    world.finish()
    assert {path: world.s3.info(path)["ETag"] for path in world.s3.find(folder)} == before
    world.check(folder)
    assert world.shop.job(world.job).delivery_objects == len(before)


def test_two_deliverers_with_other_settings_write_the_same_objects(world: World) -> None:
    folder = world.begin_anew()
    first, first_may_go_on = world.start_in_turns()
    world.environment["REFINERY_PART_BYTES_MAX"] = "3000000"
    second, second_may_go_on = world.start_in_turns()
    for process, may_go_on in ((first, first_may_go_on), (second, second_may_go_on)):
        may_go_on.set()
        process.join(60)
        assert process.exitcode == 0
        world.check(folder)
