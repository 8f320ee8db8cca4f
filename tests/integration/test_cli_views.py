"""`refinery jobs preview`, `timeline` and `objects`, and `refinery operations`, in a terminal."""

import json
from pathlib import Path

import pytest

from blocks.store import customers, delivered_objects
from deployments.embedded.object_stores import ObjectStoreAddress
from tests.support.cli import ASKED, Cli
from tests.support.s3_files import open_s3
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration


def test_a_job_is_tried_out_with_the_options_of_submit(
    cli: Cli, shop: Shop, object_store: ObjectStoreAddress, tmp_path: Path
) -> None:
    s3 = open_s3(object_store)
    s3.makedirs("cli-preview", exist_ok=True)
    lines = b'{"data_url": "https://a.example/1.jpg", "metadata": {"n": 1.0}}\n{"data_url": 5}\n'
    s3.pipe_file("cli-preview/m.jsonl", lines)
    credentials = tmp_path / "credentials.json"
    credentials.write_text(
        json.dumps(
            {
                "access_key_id": object_store.access_key_id,
                "secret_access_key": object_store.secret_access_key,
                "region": "us-east-1",
                "endpoint_url": object_store.endpoint_url,
            }
        )
    )
    given = (*ASKED, "--credentials-file", str(credentials))
    shown = cli.done("jobs", "preview", "s3://cli-preview/m.jsonl", *given).out
    assert "https://a.example/1.jpg" in shown
    assert "invalid_data_url" in shown
    (task,) = cli.done("jobs", "preview", "s3://cli-preview/m.jsonl", *given, "--json").json[
        "tasks"
    ]
    assert task["line"] == 1
    missing = cli("jobs", "preview", "s3://cli-preview/none.jsonl", *given)
    assert (missing.code, "manifest_url" in missing.err) == (4, True)
    assert shop.value("select count(*) from jobs") == 0


def test_how_a_job_went_on_is_shown_in_steps(cli: Cli, shop: Shop) -> None:
    job = shop.processing(make_chunk(3))
    ann = shop.annotator()
    shop.label(ann, *[(task.task_id, "cat") for task in shop.claim(ann, 3)])
    shown = cli.done("jobs", "timeline", job.job_id).out.splitlines()
    counts = {line.split()[-1] for line in shown if line.startswith("20")}
    assert counts == {"3"}
    assert cli.done("jobs", "timeline", job.job_id, "--json").json["job_id"] == job.job_id
    assert cli("jobs", "timeline", f"job_{'0' * 22}").code == 6


def test_the_objects_of_a_delivery_are_listed_with_their_checksums(cli: Cli, shop: Shop) -> None:
    job = shop.processing(make_chunk(3))
    made = [(f"labels/part-{n}.jsonl", 2, 1_234, f"{n:064x}") for n in range(3)]
    shop.do(delivered_objects.record, job.job_no, made)
    shown = cli.done("jobs", "objects", job.job_id).out
    assert [line.split() for line in shown.splitlines()[1:]] == [
        [key, "2", "1,234", checksum] for key, _, _, checksum in made
    ]
    some = cli.done("jobs", "objects", job.job_id, "--limit", "2")
    assert ("part-2" in some.out, "--limit" in some.err) == (False, True)
    listed = cli.done("jobs", "objects", job.job_id, "--limit", "2", "--json").json
    assert [each["sha256"] for each in listed["objects"]] == [each[3] for each in made[:2]]
    assert listed["next_cursor"] is not None


def test_operations_are_the_operators(cli: Cli, shop: Shop) -> None:
    job = shop.submit()
    refused = cli("operations")
    assert (refused.code, "an operator's key" in refused.err) == (5, True)
    cli.say(REFINERY_API_KEY=shop.do(customers.add_admin_key, "Ona"))
    ran = cli.done("operations")
    assert "runs_waiting" in ran.out
    assert job.customer_id in ran.out
    assert cli.done("operations", "--json").json["queues"]
