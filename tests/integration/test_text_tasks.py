"""Tasks with a text instead of a URL: read, stored, handed out, labelled, exported, delivered, announced."""

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from blocks.domain.model import Compression, TaskType
from blocks.store import archive, results
from flows.deliver_job import deliver_job
from flows.process_job import process_job
from flows.reading.fast_path import validate_lines
from flows.writing import parquet
from tests.support.api_world import JOB_BODY, Api
from tests.support.cli import ASKED, Cli
from tests.support.flow_world import FlowShop, run
from tests.support.store_shop import Chunk, Shop

pytestmark = pytest.mark.integration

# A quote, escapes, what is special in JSON and in terminals, and characters of four bytes.
TEXT = 'It "rains".\n\té 😀 \\ {"metadata": 1}'
URL = "https://a.example/1.jpg"
LINES = [
    json.dumps({"text": TEXT, "metadata": {"n": 1}}),
    json.dumps({"data_url": URL}),
    json.dumps({"text": "Sunny.", "metadata": {"n": 2}}, ensure_ascii=False),
]
TASK = {"type": "sentiment", "text": TEXT, "label_spec": JOB_BODY["label_spec"]}


class Read(Chunk):
    """A chunk as it is read of a manifest."""

    def __init__(self, *lines: str) -> None:
        list.__init__(self, validate_lines("\n".join(lines).encode(), 0, takes_text=True))


def processing(shop: Shop, **changes: Any) -> Any:
    return shop.processing(Read(*LINES), task_type=TaskType.SENTIMENT, **changes)


def claim(api: Api) -> list[dict[str, Any]]:
    answer = api.post("/v1/annotation/claim", {"limit": 10}, api.annotator)
    found: list[dict[str, Any]] = answer.json()["tasks"]
    return found


def label(api: Api, *said: tuple[str, str]) -> None:
    body = {"labels": [{"task_id": task, "label": option} for task, option in said]}
    assert api.post("/v1/annotation/labels", body, api.annotator).status_code == 200


def data_of(shown: dict[str, Any]) -> tuple[Any, ...]:
    """The URL, and the text if there is one."""
    return (shown["data_url"], *([shown["text"]] if "text" in shown else []))


EXPECTED = [(None, TEXT), (URL,), (None, "Sunny.")]


def test_texts_are_shown_wherever_a_url_would_be(api: Api) -> None:
    job = processing(api.shop, consensus_threshold=1)
    tasks = claim(api)
    assert [data_of(task) for task in tasks] == EXPECTED
    assert [data_of(task) for task in api.get("/v1/annotation/leases", api.annotator).json()["tasks"]] == EXPECTED  # fmt: skip
    ids = [task["task_id"] for task in tasks]
    assert [data_of(api.get(f"/v1/tasks/{id_}").json()) for id_ in ids] == EXPECTED
    label(api, *((id_, "cat") for id_ in ids))
    found = [api.get(f"/v1/tasks/{id_}/result").json() for id_ in ids]
    assert [data_of(result) for result in found] == EXPECTED
    exported = api.get(f"/v1/jobs/{job.job_id}/export").text.splitlines()
    assert [data_of(json.loads(line)) for line in exported] == EXPECTED
    assert f'"data_url":"{URL}"' in exported[1]
    assert '"metadata":{"n": 1}' in exported[0]
    before = api.get(f"/v1/jobs/{job.job_id}/export").content
    assert api.shop.do(archive.archive_some, after_s=-1)
    assert api.get(f"/v1/jobs/{job.job_id}/export").content == before


def test_an_export_of_urls_alone_is_what_it_was(api: Api) -> None:
    job = api.shop.processing(Read(LINES[1]), consensus_threshold=1)
    label(api, *((task["task_id"], "cat") for task in claim(api)))
    line = api.get(f"/v1/jobs/{job.job_id}/export").text
    assert f',"line":1,"data_url":"{URL}","metadata":null,"status"' in line
    assert '"text"' not in line


def test_a_task_without_a_result_is_listed_as_its_line(api: Api) -> None:
    job = processing(api.shop)
    api.post(f"/v1/jobs/{job.job_id}/cancel", None)
    rows = [json.loads(row) for row in api.get(f"/v1/jobs/{job.job_id}/errors").text.splitlines()]
    assert [json.loads(row["raw"]) for row in rows] == [json.loads(line) for line in LINES]


def test_a_webhook_is_told_the_text(api: Api) -> None:
    hook = {"callback_url": "https://hooks.example/x", "events": ["task.settled"]}
    webhook = api.post("/v1/webhooks", hook).json()["webhook_id"]
    processing(api.shop, consensus_threshold=1)
    label(api, *((task["task_id"], "cat") for task in claim(api)))
    log = api.get(f"/v1/webhooks/{webhook}/deliveries").json()["deliveries"]
    told = [json.loads(message["body"])["data"] for message in log]
    assert sorted(map(data_of, told), key=str) == sorted(EXPECTED, key=str)


def test_parquet_has_a_column_for_texts(api: Api) -> None:
    job = processing(api.shop, consensus_threshold=1)
    label(api, *((task["task_id"], "cat") for task in claim(api)))
    file = io.BytesIO()
    with api.shop.database.transaction() as tx:
        parquet.write(file, results.read(tx, job.job_no), compression=Compression.NONE)
    table = pq.read_table(file).to_pydict()
    assert table["data_url"] == [None, URL, None]
    assert table["text"] == [TEXT, None, "Sunny."]


def test_a_manifest_of_texts_becomes_a_delivery_of_texts(flow_shop: FlowShop) -> None:
    texts = [json.dumps({"text": f"Day {n}: é\n"}) for n in range(500)]
    bad = ['{"text": ""}', '{"text": "a", "data_url": "https://a.example/1"}', '{"content": "a"}']
    flow_shop.put("\n".join(texts + bad).encode())
    job_id = flow_shop.submit(task_type=TaskType.TEXT_CLASSIFICATION)
    assert run(process_job, job_id).is_completed()
    job = flow_shop.job(job_id)
    assert (job.total_tasks, job.tasks_failed) == (503, 3)
    assert [row["text"] for row in flow_shop.rows(job_id)] == [f"Day {n}: é\n" for n in range(500)]
    flow_shop.label_all(job_id)
    assert run(deliver_job, job_id).is_completed()
    objects = flow_shop.objects(job_id)
    lines = b"".join(objects[name] for name in sorted(objects) if name.startswith("part-"))
    assert [json.loads(line)["text"] for line in lines.splitlines()] == [
        f"Day {n}: é\n" for n in range(500)
    ]
    codes = [json.loads(line)["code"] for line in objects["errors.jsonl"].splitlines()]
    assert codes == ["invalid_text", "invalid_text", "missing_data_url"]


def test_a_manifest_of_texts_is_of_no_use_to_a_job_of_pictures(flow_shop: FlowShop) -> None:
    flow_shop.put(b'{"text": "a"}\n')
    job_id = flow_shop.submit()
    assert run(process_job, job_id).is_failed()
    assert flow_shop.job(job_id).error_code == "no_valid_lines"


# Inline


def test_an_inline_task_has_a_text_or_a_url(api: Api) -> None:
    url = {name: value for name, value in TASK.items() if name != "text"} | {"data_url": URL}
    ids = api.post("/v1/tasks/batch", {"tasks": [TASK, url, TASK]}).json()["task_ids"]
    assert [data_of(api.get(f"/v1/tasks/{id_}").json()) for id_ in ids] == [(None, TEXT), (URL,), (None, TEXT)]  # fmt: skip
    assert sorted(map(data_of, claim(api)), key=str) == [(URL,), (None, TEXT), (None, TEXT)]
    used = api.shop.value("select sum(inline_bytes)::bigint from chunks")
    assert used == len(URL) + 2 * len(TEXT.encode())


@pytest.mark.parametrize(
    "change, fields",
    [
        ({"text": None}, {"data_url"}),
        ({"text": None, "metadata": []}, {"data_url", "metadata"}),
        ({"text": None, "stop_early": 1}, {"data_url", "stop_early"}),
        ({"data_url": URL}, {"text"}),
        ({"data_url": URL, "stop_early": 1}, {"text", "stop_early"}),
        ({"data_url": 5}, {"data_url", "text"}),
        ({"text": ""}, {"text"}),
        ({"text": " \n"}, {"text"}),
        ({"text": 5}, {"text"}),
        ({"text": "a\x00"}, {"text"}),
        ({"text": "é" * 600_000}, {"text"}),
        ({"type": "image_classification"}, {"text"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value)[:40],
)
def test_a_text_that_is_wrong_is_told_with_all_other_faults(
    api: Api, change: dict[str, Any], fields: set[str]
) -> None:
    for path, body, prefix in (
        ("/v1/tasks", TASK | change, ""),
        ("/v1/tasks/batch", {"tasks": [TASK, TASK | change]}, "tasks[1]."),
    ):
        answer = api.post(path, body)
        assert answer.status_code == 400
        assert {each["field"] for each in answer.json()["details"]} == {
            prefix + field for field in fields
        }


def test_a_task_without_data_is_told_what_its_type_takes(api: Api) -> None:
    empty = {name: value for name, value in TASK.items() if name != "text"}
    for type_, message in (
        (TASK["type"], "One of data_url and text is required."),
        ("image_classification", "This field is required."),
    ):
        (fault,) = api.post("/v1/tasks", empty | {"type": type_}).json()["details"]
        assert (fault["field"], fault["message"]) == ("data_url", message)


# From the command line


def test_a_text_is_submitted_and_read_in_a_terminal(
    cli: Cli, api: Api, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = ["tasks", "submit", "--type", "sentiment", *ASKED]
    id_ = cli.done(*submit, "--text", f"{TEXT}\x1b[2J").out.strip()
    assert cli.done("tasks", "show", id_, "--json").json["text"] == f"{TEXT}\x1b[2J"
    assert cli(*submit).code == 4
    cli.say(REFINERY_ANNOTATOR_KEY=api.annotator["Authorization"].removeprefix("Bearer "))
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n\nq\n"))
    out = cli.done("annotate").out
    assert '  It "rains".\n' in out
    assert r"\x1b[2J" in out
    assert shop.value("select count(*) from labels") == 1
