"""Descriptions and hotkeys of options: posted, shown to annotators, typed in the terminal."""

import io
from typing import Any

import pytest

from blocks.domain.model import OptionDetail
from blocks.store import customers
from tests.support.api_world import JOB_BODY, Api
from tests.support.cli import ASKED, MANIFEST, Cli
from tests.support.store_shop import OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration

DETAILS = [
    {"option": "cat", "description": "Domestic 🐈 alone.", "hotkey": "c"},
    {"option": "fox", "hotkey": "é"},
]
SPEC = JOB_BODY["label_spec"] | {"option_details": DETAILS}


def claim(api: Api) -> list[dict[str, Any]]:
    answer = api.post("/v1/annotation/claim", {"limit": 10}, api.annotator)
    found: list[dict[str, Any]] = answer.json()["tasks"]
    return found


def test_a_job_and_its_claims_show_what_was_posted(api: Api) -> None:
    posted = api.submit(JOB_BODY | {"label_spec": SPEC}).json()["job_id"]
    assert api.get(f"/v1/jobs/{posted}").json()["label_spec"] == SPEC
    assert api.get(f"/v1/annotation/jobs/{posted}", api.annotator).json()["label_spec"] == SPEC
    api.shop.processing(make_chunk(2), option_details=api.shop.job(posted).option_details)
    assert [task["label_spec"] for task in claim(api)] == [SPEC, SPEC]


def test_without_details_everything_is_as_the_contract_has_it(api: Api) -> None:
    said = JOB_BODY["label_spec"] | {"option_details": [{"option": "cat"}]}
    job_id = api.submit(JOB_BODY | {"label_spec": said}).json()["job_id"]
    assert api.get(f"/v1/jobs/{job_id}").json()["label_spec"] == JOB_BODY["label_spec"]


def test_inline_tasks_of_other_details_are_tasks_of_another_question(api: Api) -> None:
    task = {"type": "sentiment", "data_url": "https://a.example/1.jpg"}
    specs = [SPEC, JOB_BODY["label_spec"], SPEC]
    body = {"tasks": [task | {"label_spec": spec} for spec in specs]}
    ids = api.post("/v1/tasks/batch", body).json()["task_ids"]
    claimed = {task["task_id"]: task["label_spec"] for task in claim(api)}
    assert [claimed[id_] for id_ in ids] == specs
    assert [api.get(f"/v1/tasks/{id_}").json()["label_spec"] for id_ in ids] == specs
    assert api.shop.value("select count(*) from jobs") == 2


def test_the_command_line_says_of_options_what_they_are(cli: Cli, shop: Shop) -> None:
    said = ["--option", "cat=big", "--describe", "cat=big=A lion = a cat.", "--hotkey", "cat=big=="]
    job_id = cli.done("jobs", "submit", MANIFEST, *ASKED, *said, "--hotkey", "cat=C").out.strip()
    assert cli.done("jobs", "show", job_id, "--json").json["label_spec"]["option_details"] == [
        {"option": "cat=big", "description": "A lion = a cat.", "hotkey": "="},
        {"option": "cat", "hotkey": "C"},
    ]
    for wrong in (["--hotkey", "cow=c"], ["--describe", "cat"], ["--hotkey", "cat=a", "--hotkey", "cat=b"]):  # fmt: skip
        assert cli("jobs", "submit", MANIFEST, *ASKED, *wrong).code == 2
    task = cli.done("tasks", "submit", "https://a.example/1", *ASKED, "--hotkey", "dog=d")
    shown = cli.done("tasks", "show", task.out.strip(), "--json").json
    assert shown["label_spec"]["option_details"] == [{"option": "dog", "hotkey": "d"}]


def test_the_terminal_takes_hotkeys_that_mean_nothing_else_there(
    cli: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = shop.do(customers.add_annotator_key, "ann")
    cli.say(REFINERY_ANNOTATOR_KEY=key)
    details = [
        OptionDetail(option="cat", hotkey="3", description="Domestic\x1b[2J cats."),
        OptionDetail(option="dog", hotkey="S"),
        OptionDetail(option="fox", hotkey="É"),
    ]
    shop.processing(make_chunk(4), option_details=details, consensus_threshold=1)
    monkeypatch.setattr("sys.stdin", io.StringIO("é\n3\ns\nS\n\nq\n"))
    out = cli.done("annotate").out
    assert r"Domestic\x1b[2J cats." in out
    assert "   3  fox [É]" in out
    assert "a number or a key in [] chooses; ? unclear" in out
    assert "   1  cat\n" in out
    assert [OPTIONS[row["option"] - 1] for row in shop.run("select option from labels")] == [
        "fox", "fox",
    ]  # fmt: skip
