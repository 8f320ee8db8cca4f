"""A corrupt page is named, and holds up nobody but the tasks on it."""

import json
from collections.abc import Iterator

import pytest

from api.signatures import new_secret
from blocks.domain.model import LabelOutcome
from blocks.store import leases, webhooks
from blocks.store.annotation import ClaimedTask
from blocks.store.archive import archive_some
from blocks.store.webhooks import Event, NewWebhook
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

# Of 600 tasks of a chunk, 256 are on the second page.
_FLIPPED = (
    "update pages set content = set_byte(content, 20, 255 - get_byte(content, 20))"
    " where job_no = %s and first_task = 256"
)


def test_a_claim_passes_over_a_corrupt_page(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    broken = shop.processing(make_chunk(600), consensus_threshold=2)
    whole = shop.processing(make_chunk(300), consensus_threshold=2)
    people = shop.annotators(2)
    shop.run(_FLIPPED, broken.job_no)
    for annotator in people:
        claimed = [task.task_id for task in iter_claims(shop, annotator)]
        assert len(claimed) == len(set(claimed)) == 344 + 300
        assert sorted(iter_held(shop, annotator)) == sorted(claimed)
        shop.label(annotator, *((found, "cat") for found in claimed))
    assert shop.job(whole).status == "completed"
    assert f"The page of job {broken.job_no} from task 256 on is corrupt" in caplog.text
    shop.run(_FLIPPED, broken.job_no)  # restored
    shop.expire_leases()
    for annotator in people:
        claimed = [task.task_id for task in iter_claims(shop, annotator)]
        assert set(claimed) == {broken.task_id(n) for n in range(256, 512)}
        shop.label(annotator, *((found, "cat") for found in claimed))
    assert shop.job(broken).status == "completed"


def test_a_claim_looks_at_few_tasks_of_corrupt_pages(shop: Shop) -> None:
    """It ends, with less than there is; the next one goes on."""
    broken = shop.processing(make_chunk(600))
    shop.run(_FLIPPED, broken.job_no)
    annotator = shop.annotator()
    shop.claim(annotator, 256)
    assert len(shop.claim(annotator, 1)) <= 1
    assert len(list(iter_claims(shop, annotator))) >= 87


def test_a_label_counts_though_its_page_has_become_corrupt(shop: Shop) -> None:
    new = NewWebhook(
        customer_id=shop.customer_id,
        callback_url="https://hooks.example/",
        events=[Event.TASK_SETTLED],
        secret=new_secret(),
    )
    shop.do(webhooks.register, new, shop.vault)
    job = shop.processing(make_chunk(300), consensus_threshold=2)
    people = shop.annotators(2)
    claimed = {annotator: shop.claim(annotator, 300) for annotator in people}
    shop.run(_FLIPPED, job.job_no)
    for annotator, tasks in claimed.items():
        shop.label(annotator, *((task.task_id, "cat") for task in tasks))
    assert shop.job(job).status == "completed"
    bodies = [json.loads(row["body"])["data"] for row in shop.run("select body from notifications")]
    assert len(bodies) == 300
    assert sum(body["data_url"] is None for body in bodies) == 300 - 256


def iter_held(shop: Shop, annotator: int) -> Iterator[str]:
    """The ids of all tasks that the annotator holds, page by page, some of them empty."""
    after = None
    while True:
        page = shop.do(leases.list_page, annotator, limit=100, after=after)
        yield from (task.task_id for task in page.tasks)
        if page.last is None:
            return
        after = page.last


def iter_claims(shop: Shop, annotator: int) -> Iterator[ClaimedTask]:
    """All that the annotator is handed, until there is nothing left."""
    while tasks := shop.claim(annotator, 100):
        yield from tasks


def test_a_label_that_comes_again_for_a_corrupt_archive_holds_up_no_other(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    over = shop.processing(make_chunk(2), consensus_threshold=2)
    people = shop.annotators(2)
    for annotator in people:
        shop.answer(annotator, "cat")
    assert shop.do(archive_some, after_s=0) == 2
    shop.processing(make_chunk(1), consensus_threshold=2)
    (task,) = shop.claim(people[0])
    labels = [(over.task_id(0), "cat"), (task.task_id, "cat")]
    assert shop.label(people[0], *labels)[0] is LabelOutcome.DUPLICATE
    shop.run(
        "update archived_labels set content = set_byte(content, 8, 255 - get_byte(content, 8))"
    )
    (task,) = shop.claim(people[1])
    labels[1] = (task.task_id, "cat")
    assert shop.label(people[1], *labels) == [LabelOutcome.ALREADY_SETTLED, LabelOutcome.SETTLED]
    assert "archive_corrupt" in caplog.text
