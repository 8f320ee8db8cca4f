"""Instructions: posted with a job or a task, named in claims, read where they are asked for."""

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from blocks.store import customers, instructions, jobs, streams
from blocks.store.streams import Manifest, Stream
from tests.support.api_world import JOB_BODY, Api
from tests.support.cli import ASKED, MANIFEST, Cli
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

TEXT = "# Cats\r\n\r\nA *lynx* is a cat. 🐈\n"
TASK = {
    "type": "sentiment",
    "data_url": "https://a.example/1.jpg",
    "label_spec": JOB_BODY["label_spec"],
}


def claim(api: Api, **body: Any) -> list[dict[str, Any]]:
    answer = api.post("/v1/annotation/claim", {"limit": 100} | body, api.annotator)
    found: list[dict[str, Any]] = answer.json()["tasks"]
    return found


def read(api: Api, job_id: str) -> Any:
    return api.get(f"/v1/annotation/jobs/{job_id}", api.annotator).json()


def test_a_claim_names_the_version_and_the_job_has_the_text(api: Api) -> None:
    job = api.shop.processing(make_chunk(100), instructions="x" * 65_536)
    answer = api.post("/v1/annotation/claim", {"limit": 100}, api.annotator)
    assert len(answer.content) < 50_000
    (named,) = {tuple(task["instructions"].items()) for task in answer.json()["tasks"]}
    found = read(api, job.job_id)
    assert dict(named) == {"job_id": job.job_id, "version": found["instructions_version"]}
    assert found["instructions"] == "x" * 65_536
    assert (found["label_spec"], found["is_open"]) == (JOB_BODY["label_spec"], True)


def test_what_is_posted_comes_back_as_it_was(api: Api) -> None:
    job_id = api.submit(JOB_BODY | {"instructions": TEXT}).json()["job_id"]
    shown = api.get(f"/v1/jobs/{job_id}").json()
    own = api.get(f"/v1/jobs/{job_id}/instructions").json()
    assert own == {"version": shown["instructions_version"], "text": TEXT}
    assert read(api, job_id)["instructions"] == TEXT


def test_without_instructions_nothing_is_said_of_them(api: Api) -> None:
    job = api.shop.processing(make_chunk(1))
    (task,) = claim(api)
    assert "instructions" not in task
    assert "instructions_version" not in api.get(f"/v1/jobs/{job.job_id}").json()
    nothing = {"version": None, "text": None}
    assert api.get(f"/v1/jobs/{job.job_id}/instructions").json() == nothing
    assert read(api, job.job_id)["instructions"] is None


def test_the_version_changes_with_the_text_alone(api: Api) -> None:
    def version(text: str, **more: Any) -> str:
        job_id = api.submit(JOB_BODY | more | {"instructions": text}).json()["job_id"]
        found: str = api.get(f"/v1/jobs/{job_id}").json()["instructions_version"]
        return found

    same, other = version(TEXT), version(TEXT + " ")
    assert version(TEXT, priority=9) == same != other
    # The text is stored once, whatever the number of jobs.
    assert api.shop.value("select count(*) from instructions") == 2


def test_inline_tasks_of_other_instructions_are_tasks_of_another_question(api: Api) -> None:
    texts = [None, TEXT, "Else.", TEXT]
    tasks = [TASK | {"instructions": text} for text in texts]
    ids = api.post("/v1/tasks/batch", {"tasks": tasks}).json()["task_ids"]
    claimed = {task["task_id"]: task for task in claim(api)}
    assert claimed.keys() == set(ids)
    for id_, text in zip(ids, texts, strict=True):
        named = claimed[id_].get("instructions")
        assert (named and read(api, named["job_id"])["instructions"]) == text
        shown = api.get(f"/v1/tasks/{id_}").json().get("instructions_version")
        assert shown == (named and named["version"])
    assert api.shop.value("select count(*) from jobs") == 3


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/tasks"])
def test_instructions_are_bounded_by_their_bytes(api: Api, path: str) -> None:
    body = JOB_BODY if path == "/v1/jobs" else TASK
    assert api.post(path, body | {"instructions": "é" * 32_768}).status_code == 202
    for text, words in (("é" * 32_769, "at most 65,536 bytes of UTF-8; these are 65,538"), (" ", "not be empty")):  # fmt: skip
        answer = api.post(path, body | {"instructions": text})
        assert answer.status_code == 400
        (fault,) = answer.json()["details"]
        assert (fault["field"], words in fault["message"]) == ("instructions", True)


def test_a_job_of_others_is_as_one_that_is_not_there(api: Api) -> None:
    other = api.shop.do(customers.add_customer, "Other")
    job = api.shop.processing(make_chunk(1), instructions=TEXT, customer_id=other)
    _, key = api.shop.do(customers.add_annotator_key, "ann", [api.shop.customer_id])
    hidden = api.get(f"/v1/annotation/jobs/{job.job_id}", api.bearer(key))
    missing = api.get("/v1/annotation/jobs/job_x", api.bearer(key))
    assert (hidden.status_code, hidden.content) == (404, missing.content)
    assert read(api, job.job_id)["instructions"] == TEXT
    assert api.get(f"/v1/jobs/{job.job_id}/instructions").status_code == 404


def test_a_job_that_is_made_anew_has_its_instructions(shop: Shop) -> None:
    stream, manifest = Stream(shop.customer_id, "daily"), Manifest("s3://manifests/a.jsonl", "1")
    shop.do(streams.begin, stream, datetime.now(UTC))
    new = shop.new_job(instructions=TEXT)
    job = shop.job(shop.do(streams.submit, stream, manifest, shop.vault, new))
    shop.do(jobs.fail, job.job_no, "access_denied", "It was refused.")
    again = shop.job(shop.do(streams.resubmit, stream, manifest, shop.vault))
    assert again.job_id != job.job_id
    assert shop.do(instructions.read, again.instructions_digest) == TEXT


# From the command line


def test_a_file_of_instructions_is_submitted_and_shown(
    cli: Cli, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cats.md"
    file.write_bytes(TEXT.encode())
    job_id = cli.done("jobs", "submit", MANIFEST, *ASKED, "--instructions", str(file)).out.strip()
    assert cli.done("jobs", "instructions", job_id, "--json").json["text"] == TEXT
    assert cli.done("jobs", "instructions", job_id).out == TEXT.replace("\r\n", "\n") + "\n"
    bare = cli.done("jobs", "submit", MANIFEST, *ASKED).out.strip()
    assert "has no instructions" in cli.done("jobs", "instructions", bare).err
    task = ["tasks", "submit", "https://a.example/1.jpg", *ASKED, "--instructions"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    cli.done(*task, "-")
    assert shop.value("select count(*) from instructions") == 1
    file.write_bytes(b"# Cats\n\xff")
    refused = cli(*task, str(file))
    assert (refused.code, "line 2: This is not UTF-8" in refused.err) == (2, True)


def test_the_terminal_shows_instructions_once_and_when_asked(
    cli: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = shop.do(customers.add_annotator_key, "ann")
    cli.say(REFINERY_ANNOTATOR_KEY=key)
    shop.processing(make_chunk(4), instructions="Look\x1b[2J twice.", consensus_threshold=1)

    def typed(*words: str) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{word}\n" for word in words)))
        return cli.done("annotate", "--at-once", "2").out

    assert typed("1", "1", "", "1", "i", "q").count(r"Look\x1b[2J twice.") == 2
    out = typed("0", "q")
    assert out.count("Look") == 1
    assert "Type a number from 1 to 3, ?, !, -, s, u, i or q." in out
