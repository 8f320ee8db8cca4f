"""What the console asks for beside the rest: a job that is tried out, found, plotted and compared."""

import gzip
import secrets
import threading
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest

from api.routes import job_preview
from blocks.secrets.signing import Signer, open_signer
from blocks.store import customers, delivered_objects, job_lists, jobs
from deployments.embedded.object_stores import ObjectStoreAddress
from tests.support.api_world import JOB_BODY, Api
from tests.support.s3_files import open_s3
from tests.support.side import WAIT_S, Side, wait_until
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

HOSTILE = '<img src=x onerror="alert(1)">'
LINES = [
    '{"data_url": "https://a.example/1.jpg", "metadata": {"shown": 1, "hidden": "H"}}',
    "",
    f'{{"data_url": "s3://pictures/2.jpg", "metadata": {{"hidden": "{HOSTILE[:4]}"}}}}',
    '{"data_url": "https://a.example/3.jpg", "gold": "dog"}',
    f"{HOSTILE}{'x' * 3_000}",
]


@pytest.fixture
def body(object_store: ObjectStoreAddress) -> dict[str, Any]:
    """A job whose manifest is there."""
    bucket = f"preview-{secrets.token_hex(4)}"
    s3 = open_s3(object_store)
    s3.mkdir(bucket)
    s3.pipe_file(f"{bucket}/m.jsonl", "\n".join(LINES).encode())
    return JOB_BODY | {
        "manifest_url": f"s3://{bucket}/m.jsonl",
        "label_spec": {"question": "Which?", "options": ["cat", "dog"]},
        "credentials": {
            "access_key_id": object_store.access_key_id,
            "secret_access_key": object_store.secret_access_key,
            "region": "us-east-1",
            "endpoint_url": object_store.endpoint_url,
        },
    }


# A job is tried out


def test_a_preview_shows_the_first_lines_as_annotators_see_them(
    api: Api, body: dict[str, Any]
) -> None:
    found = api.post("/v1/jobs/preview", body | {"show_metadata": ["shown"]})
    assert found.status_code == 200, found.text
    shown = found.json()
    assert shown["label_spec"] == body["label_spec"]
    assert shown["tasks"] == [
        {"line": 1, "data_url": "https://a.example/1.jpg", "metadata": {"shown": 1}},
        {"line": 3, "data_url": "s3://pictures/2.jpg"},
        {"line": 4, "data_url": "https://a.example/3.jpg", "gold": "dog"},
    ]
    (bad,) = shown["bad_lines"]
    assert (bad["line"], bad["code"]) == (5, "malformed_json")
    assert bad["raw"] == LINES[4][:2_000]
    assert api.get("/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize("suffix", [".gz", ".ZST"])
def test_a_preview_shows_the_first_lines_of_a_compressed_manifest(
    api: Api, object_store: ObjectStoreAddress, body: dict[str, Any], suffix: str
) -> None:
    plain = api.post("/v1/jobs/preview", body).json()
    text = "\n".join(LINES).encode()
    packed = (
        gzip.compress(text) if suffix == ".gz" else pa.Codec("zstd").compress(text, asbytes=True)
    )
    url = body["manifest_url"] + suffix
    s3 = open_s3(object_store)
    s3.pipe_file(url, packed)
    assert api.post("/v1/jobs/preview", body | {"manifest_url": url}).json() == plain
    s3.pipe_file(url, packed[:-9])
    cut = api.post("/v1/jobs/preview", body | {"manifest_url": url})
    (fault,) = cut.json()["details"]
    assert (cut.status_code, fault["field"], fault["code"]) == (
        422, "manifest_url", "manifest_corrupt",
    )  # fmt: skip


def test_a_preview_signs_what_annotators_get_signed(api: Api, body: dict[str, Any]) -> None:
    first, second, _ = api.post("/v1/jobs/preview", body | {"sign_urls": True}).json()["tasks"]
    assert "signed_url" not in first
    assert "X-Amz-Signature=" in second["signed_url"]
    assert body["credentials"]["secret_access_key"] not in str(second)


def test_a_preview_holds_up_no_other_request_while_it_signs(
    api: Api, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    signs, may_go_on = threading.Event(), threading.Event()

    def open_slowly(*arguments: Any, **options: Any) -> Signer:
        signs.set()
        assert may_go_on.wait(WAIT_S)
        return open_signer(*arguments, **options)

    monkeypatch.setattr(job_preview, "open_signer", open_slowly)
    preview = Side(lambda: api.post("/v1/jobs/preview", body | {"sign_urls": True}))
    assert signs.wait(WAIT_S)
    other = Side(lambda: api.client.get("/health/live"))
    is_answered = other.wait(WAIT_S / 2)
    may_go_on.set()
    assert preview.join().status_code == 200
    assert is_answered


@pytest.mark.parametrize(
    "changes, status, field",
    [
        ({"manifest_url": "s3://no-such-bucket-9/m.jsonl"}, 422, "manifest_url"),
        ({"callback_url": "https://10.1.2.3/hook"}, 422, "callback_url"),
        ({"consensus_threshold": 11}, 400, "consensus_threshold"),
    ],
    ids=["manifest", "callback", "field"],
)
def test_a_preview_names_the_field_that_does_not_work(
    api: Api, body: dict[str, Any], changes: dict[str, Any], status: int, field: str
) -> None:
    answer = api.post("/v1/jobs/preview", body | changes)
    assert answer.status_code == status
    assert field in {fault["field"] for fault in answer.json()["details"]}


# Jobs are found


@pytest.mark.parametrize(
    "query, found",
    [
        ("search=CATS", [2, 0]),
        ("search=cats&status=cancelled", []),
        ("search=what%20is", [2, 1, 0]),
        ("search=%25", []),
        ("search=_x_", []),
    ],
)
def test_jobs_are_found_by_a_text(api: Api, query: str, found: list[int]) -> None:
    names = ["cats", "dogs", "more-cats"]
    made = [api.shop.submit(manifest_url=f"s3://manifests/{name}.jsonl").job_id for name in names]
    other = api.new_customer()
    assert api.get(f"/v1/jobs?{query}", other).json()["jobs"] == []
    shown = api.get(f"/v1/jobs?{query}").json()["jobs"]
    assert [made.index(job["job_id"]) for job in shown] == found


def test_an_operator_finds_the_jobs_of_all(api: Api) -> None:
    shop = api.shop
    other_id = shop.do(customers.add_customer, "Other")
    made = [shop.submit().job_id, shop.submit(customer_id=other_id).job_id]
    operator = api.bearer(shop.do(customers.add_admin_key, "Olga"))
    for query, found in (
        ("search=what", [1, 0]),
        ("search=what&status=failed", []),
        (f"search=what&customer={other_id}", [1]),
        ("search=what&limit=1", [1]),
    ):
        shown = api.get(f"/v1/jobs?{query}", operator).json()["jobs"]
        assert [made.index(job["job_id"]) for job in shown] == found, query
    for path in ("timeline", "delivery/objects"):
        assert api.get(f"/v1/jobs/{made[1]}/{path}", operator).status_code == 200


def test_a_search_goes_on_page_by_page(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_lists, "_SEARCHED_MAX", 3)
    made = [
        api.shop.submit(manifest_url=f"s3://manifests/{name}.jsonl").job_id
        for name in ("cats", "dogs", "dogs", "dogs", "cats", "cats", "dogs")
    ]
    pages: list[list[int]] = []
    cursor = None
    while cursor is not None or not pages:
        query = "search=cats&limit=1" + (f"&cursor={cursor}" if cursor else "")
        page = api.get(f"/v1/jobs?{query}").json()
        pages.append([made.index(job["job_id"]) for job in page["jobs"]])
        cursor = page["next_cursor"]
    assert [n for page in pages for n in page] == [5, 4, 0]


# Operators look on


def waiting(api: Api, operator: dict[str, str]) -> dict[str, tuple[int, int]]:
    """How many runs each customer has under way, and how many wait."""
    shares = api.get("/v1/operations", operator).json()["customers"]
    return {each["customer_id"]: (each["under_way"], each["waiting"]) for each in shares}


def test_operations_say_who_waits_for_what(api: Api) -> None:
    shop = api.shop
    other_id = shop.do(customers.add_customer, "Other")
    mine = [shop.submit() for _ in range(3)]
    shop.submit(customer_id=other_id)
    shop.run(
        "update runs set launched_at = now(), flow_run_id = gen_random_uuid() where job_no = %s",
        mine[0].job_no,
    )
    shop.do(jobs.begin, mine[1].job_no)
    shop.do(jobs.cancel, mine[1].job_no)
    operator = api.bearer(shop.do(customers.add_admin_key, "Olga"))
    # The launcher tries each in its turn, and puts it off, as there is no Prefect here.
    wait_until(lambda: waiting(api, operator) == {shop.customer_id: (1, 1), other_id: (0, 1)})
    shown = api.get("/v1/operations", operator).json()
    assert {each["name"] for each in shown["customers"]} == {"Acme", "Other"}
    in_hand = {each["job_id"]: each["flow_run_id"] for each in shown["runs"]}
    assert in_hand[mine[0].job_id] is not None
    assert mine[1].job_id in {each["job_id"] for each in shown["outbox"]}
    assert {queue["name"] for queue in shown["queues"]} == {
        "outbox", "runs_waiting", "runs_under_way", "webhooks",
    }  # fmt: skip
    assert shown["failing_endpoints"] == []
    assert shown["reconciled"] is None  # there is no Prefect here


# A job is plotted


def test_a_timeline_counts_lines_and_labels(api: Api) -> None:
    shop = api.shop
    job = shop.processing(make_chunk(2, bad=1), make_chunk(3, start=300))
    shop.answer(shop.annotator(), "cat")
    shop.run("update chunks set created_at = created_at - interval '1 hour' where chunk_no = 0")
    shown = api.get(f"/v1/jobs/{job.job_id}/timeline").json()
    assert [point["count"] for point in shown["lines"]["points"]] == [3, 3]
    assert shown["lines"]["step_s"] == 60
    first, last = (datetime.fromisoformat(point["at"]) for point in shown["lines"]["points"])
    assert 3540 <= (last - first).total_seconds() <= 3660
    assert [point["count"] for point in shown["labels"]["points"]] == [5]
    assert shown["bad_lines"] == {"malformed_json": 1}


def test_a_job_that_was_not_begun_has_an_empty_timeline(api: Api) -> None:
    shown = api.get(f"/v1/jobs/{api.shop.submit().job_id}/timeline").json()
    assert (shown["lines"]["points"], shown["labels"]["points"], shown["bad_lines"]) == ([], [], {})


# A delivery is compared


def test_the_objects_of_a_delivery_are_listed_page_by_page(api: Api, shop: Shop) -> None:
    job = shop.submit()
    path = f"/v1/jobs/{job.job_id}/delivery/objects"
    assert api.get(path).json() == {"objects": [], "next_cursor": None}
    listed = [(f"out/part-{n}", n, n * 10, secrets.token_hex(32)) for n in (1, 2, 3)]
    shop.do(delivered_objects.record, job.job_no, listed)
    first = api.get(f"{path}?limit=2").json()
    last = api.get(f"{path}?limit=2&cursor={first['next_cursor']}").json()
    shown = [*first["objects"], *last["objects"]]
    assert [(o["key"], o["rows"], o["bytes"], o["sha256"]) for o in shown] == listed
    assert last["next_cursor"] is None
    assert api.get(path, api.new_customer()).status_code == 404
    assert api.get(f"{path}?cursor=x").json()["code"] == "invalid_request"
