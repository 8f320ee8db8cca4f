"""Deliveries of jobs with gold and single labels: their manifest adds up, and so do their results."""

import json
from typing import Any

import pytest

from api.cli.verify import check_folder
from blocks.domain.model import Compression, ResultFormat
from blocks.domain.object_urls import StoreType
from blocks.store import results
from blocks.store.jobs import DeliveryTarget
from flows.deliver_job import deliver_job
from flows.process_job import process_job
from flows.writing.folder import Layout
from tests.support.checks import truth
from tests.support.flow_world import FlowShop, run
from tests.support.made_delivery import read_part
from tests.support.manifests import make_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

LAYOUTS = [
    Layout(ResultFormat.JSONL, Compression.ZSTD),
    Layout(ResultFormat.PARQUET, Compression.ZSTD),
]
RULES: dict[str, dict[str, Any]] = {
    "majority": {},
    "weighted": {"target_confidence": 6000, "labels_max": 5},
}


def make_gold(shop: FlowShop, job_id: str, answers: list[str]) -> None:
    """Make the first tasks gold, as if their lines said so."""
    job = shop.job(job_id)
    values = {"job_no": job.job_no, "options": [job.options.index(each) + 1 for each in answers]}
    with shop.database.transaction() as tx:
        tx.execute(
            "insert into gold_tasks select %(job_no)s, n - 1, option "
            "from unnest(%(options)s::smallint[]) with ordinality as u (option, n)",
            values,
        )
        tx.execute(
            "update chunks set settled = 3 where (job_no, chunk_no) = (%(job_no)s, 0)", values
        )
        tx.execute("update jobs set has_gold = true where job_no = %(job_no)s", values)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda each: each.format)
@pytest.mark.parametrize("rule", RULES)
def test_what_is_delivered_is_the_export_and_can_be_computed_again(
    flow_shop: FlowShop, rule: str, layout: Layout
) -> None:
    shop = flow_shop
    data = make_manifest(40).data
    shop.put(data)
    target = DeliveryTarget(
        StoreType.S3, shop.bucket, "out", layout.compression, format=layout.format
    )
    job_id = shop.submit(include_labels=True, delivery=target, **RULES[rule])
    assert run(process_job, job_id).is_completed()
    make_gold(shop, job_id, [truth(json.loads(line)) for line in data.splitlines()[:3]])
    shop.label_all(job_id)
    assert run(deliver_job, job_id).is_completed()
    report = check_folder(shop.s3, f"{shop.bucket}/out/{job_id}", recompute=True)
    job = shop.job(job_id)
    assert (report.problems, report.recomputed) == ([], job.tasks_done)
    assert job.tasks_done + job.tasks_failed == job.total_tasks
    objects = shop.objects(job_id)
    manifest = json.loads(objects["manifest.json"])
    assert manifest["consensus"]["method"] == rule
    lines = read_part(layout, objects[f"part-00000.{layout.extension}"])
    with shop.database.long_read() as tx:
        export = [
            json.loads(line) for line in b"".join(results.export(tx, job.job_no)).splitlines()
        ]
    assert [line["task_id"] for line in lines] == [line["task_id"] for line in export]
    assert sum(bool(line.get("gold")) for line in lines) == 3
    assert manifest["labels"]["count"] == sum(len(line["labels"]) for line in export) > 50
