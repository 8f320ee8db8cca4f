"""`refinery` as a client of the API: every command, and how each of them ends."""

import io
import json
import re
import stat
import threading
from pathlib import Path

import pytest

from api.cli import client, export
from api.cli.exits import Exit
from blocks.store import customers, jobs
from tests.support.api_world import JOB_BODY
from tests.support.cli import ASKED, MANIFEST, Cli, settle, settled_job
from tests.support.faulty_store import Fault, FaultyStore, Refusal, Request
from tests.support.mixed_job import make_mixed_job
from tests.support.store_shop import DELIVERY, Shop, make_chunk

pytestmark = pytest.mark.integration


def test_a_job_is_submitted_found_and_shown(cli: Cli) -> None:
    job_id = cli.done("jobs", "submit", MANIFEST, *ASKED, "--priority", "7").out.strip()
    shown = cli.done("jobs", "show", job_id, "--json").json
    assert (shown["job_id"], shown["status"], shown["priority"]) == (job_id, "accepted", 7)
    assert shown["label_spec"] == JOB_BODY["label_spec"]
    text = cli.done("jobs", "show", job_id).out
    assert "What is it?" in text
    assert "cat, dog, fox" in text
    table = cli.done("jobs", "list").out
    assert job_id in table
    assert MANIFEST in table
    listed = cli.done("jobs", "list", "--status", "accepted", "--json").json
    assert [job["job_id"] for job in listed["jobs"]] == [job_id]
    assert cli.done("jobs", "list", "--status", "completed", "--json").json["jobs"] == []
    for text, count in (("WHAT IS", 1), ("nowhere", 0)):
        assert len(cli.done("jobs", "list", "--search", text, "--json").json["jobs"]) == count


def test_everything_that_a_job_can_say_can_be_said(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    credentials = {"access_key_id": "AK", "secret_access_key": "secret", "region": "eu-central-1"}
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps(credentials))
    job_id = cli.done(
        "jobs", "submit", MANIFEST, *ASKED, "--threshold", "5", "--task-type", "text_classification",
        "--stop-early", "--failure-threshold-percent", "2.5", "--callback-url", "https://a.example/",
        "--metadata.order", "17", "--delivery", "s3://results/out/", "--format", "parquet",
        "--compression", "zstd", "--acl", "private", "--credentials-file", str(file), "--sign-urls",
    ).out.strip()  # fmt: skip
    shown = cli.done("jobs", "show", job_id, "--json").json
    expected = {
        "consensus_threshold": 5,
        "task_type": "text_classification",
        "stop_early": True,
        "failure_threshold_percent": 2.5,
        "sign_urls": True,
        "callback_url": "https://a.example/",
        "metadata": {"order": "17"},
    }
    assert {name: shown[name] for name in expected} == expected
    target = shop.job(job_id).delivery
    assert target is not None
    assert (target.bucket, target.format, target.compression, target.acl) == (
        "results", "parquet", "zstd", "private",
    )  # fmt: skip
    assert shop.value("select credentials is not null from jobs") is True


def test_a_body_can_come_from_a_file_and_options_go_before_it(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps({**JOB_BODY, "priority": 1, "consensus_threshold": 7}))
    job_id = cli.done("jobs", "submit", "--file", str(file), "--priority", "9").out.strip()
    shown = cli.done("jobs", "show", job_id, "--json").json
    assert (shown["priority"], shown["consensus_threshold"]) == (9, 7)


def test_a_key_makes_a_submission_one_job_however_often_it_is_sent(cli: Cli) -> None:
    again = [
        cli.done("jobs", "submit", MANIFEST, *ASKED, "--idempotency-key", "one").out
        for _ in range(2)
    ]
    other = cli.done("jobs", "submit", MANIFEST, *ASKED).out
    assert len({*again, other}) == 2
    ran = cli("jobs", "submit", MANIFEST, *ASKED, "--priority", "1", "--idempotency-key", "one")
    assert ran.code == 7


def test_a_list_has_as_many_as_are_wanted(cli: Cli) -> None:
    for _ in range(5):
        cli.done("jobs", "submit", MANIFEST, *ASKED)
    page = cli.done("jobs", "list", "--limit", "2", "--json").json
    assert len(page["jobs"]) == 2
    assert page["next_cursor"]
    everything = cli.done("jobs", "list", "--all", "--json").json
    assert len(everything["jobs"]) == 5
    assert everything["next_cursor"] is None


def test_watching_ends_with_the_job(cli: Cli, shop: Shop) -> None:
    job = shop.processing(make_chunk(10))
    labelling = threading.Thread(target=settle, args=(shop,))
    labelling.start()
    ran = cli.done("jobs", "watch", job.job_id, "--json")
    labelling.join()
    assert ran.json["status"] == "completed"
    assert ran.json["tasks_done"] == 10


def test_what_a_job_waits_for_is_said_in_words(cli: Cli, shop: Shop) -> None:
    shop.run("update api_keys set revoked_at = now() where annotator_no is not null")
    job_id = shop.processing(make_chunk(10)).job_id
    assert cli.done("jobs", "show", job_id, "--json").json["waiting_for"]["annotators"] == 3
    shown = " ".join(cli.done("jobs", "show", job_id).out.split())
    assert "annotators: 3 more annotators are needed" in shown
    assert "processing, waits for annotators" in cli.done("jobs", "list").out
    labelling = threading.Timer(1.0, settle, (shop,))
    labelling.start()
    watched = cli.done("jobs", "watch", job_id)
    labelling.join()
    assert "annotators: 3 more annotators are needed" in " ".join(watched.err.split())


def test_a_job_that_fails_is_no_success(cli: Cli, shop: Shop) -> None:
    job = shop.processing(make_chunk(10))
    shop.run(
        "update jobs set status = 'failed', error_code = 'x', error_message = 'It is [broken].'"
    )
    ran = cli("jobs", "watch", job.job_id)
    assert ran.code == 1
    assert "It is [broken]." in ran.err
    assert "failed" in ran.out


def test_watching_survives_an_api_that_is_away(
    cli: Cli, shop: Shop, proxy: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_TRIES", 2)
    job_id = shop.processing(make_chunk(10)).job_id

    def settle_then_fail(request: Request) -> bool:
        if "wait" in request.target and len(proxy.played) == 3:
            settle(shop)
        return "wait" in request.target and len(proxy.played) < 4

    proxy.always(Fault.RESET, settle_then_fail)
    ran = cli.done("jobs", "watch", job_id, "--json")
    assert ran.json["status"] == "completed"
    assert "still watching" in ran.err


def test_bad_lines_are_listed_and_the_lines_alone(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    job_id = settled_job(shop)
    rows = [json.loads(row) for row in cli.done("jobs", "errors", job_id).out.splitlines()]
    assert [row["line"] for row in rows] == [11, 12]
    file = tmp_path / "bad.jsonl"
    cli.done("jobs", "errors", job_id, "--format", "manifest", "-o", str(file))
    assert file.read_bytes() == b"{oops\n{oops\n"


def test_results_go_to_standard_output_or_a_file(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    job_id = settled_job(shop)
    text = cli.done("jobs", "export", job_id).out
    assert [json.loads(row)["line"] for row in text.splitlines()] == list(range(1, 11))
    file = tmp_path / "results.jsonl"
    report = cli.done("jobs", "export", job_id, "-o", str(file), "--json").json
    assert report == {"file": str(file), "bytes": len(text)}
    assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]
    ran = cli("jobs", "export", job_id, "-o", str(file))
    assert (ran.code, "--force" in ran.err) == (2, True)
    cli.done("jobs", "export", job_id, "-o", str(file), "--force")


FAULTS = [Fault.HALF_BODY, Fault.RESET_IN_BODY, Fault.RESET, Fault.BAD_GATEWAY, Fault.SLOW_DOWN]


def test_an_export_that_breaks_off_goes_on(
    cli: Cli, shop: Shop, proxy: FaultyStore, tmp_path: Path
) -> None:
    job_id = settled_job(shop, 500)
    whole = cli.done("jobs", "export", job_id).out
    proxy.script(FAULTS, lambda request: "/export" in request.target)
    file = tmp_path / "results.jsonl"
    ran = cli.done("jobs", "export", job_id, "-o", str(file))
    assert file.read_text() == whole
    assert len(proxy.played) == len(FAULTS)
    assert ran.err.count("going on after line") == len(FAULTS)
    lines = {request.target.rpartition("after=")[2] for request in proxy.requests}
    assert len(lines) >= 3  # it has not begun anew


@pytest.mark.parametrize("end", ["", '{"line": 8, "da', "rubbish\n", '{"line": null}\n'])
def test_an_export_that_was_killed_is_gone_on_with(
    cli: Cli, shop: Shop, tmp_path: Path, end: str
) -> None:
    job_id = settled_job(shop)
    whole = cli.done("jobs", "export", job_id).out
    file = tmp_path / "results.jsonl"
    part = tmp_path / f"results.jsonl.{job_id}.part"
    part.write_text("".join(whole.splitlines(keepends=True)[:7]) + end)
    cli.done("jobs", "export", job_id, "-o", str(file))
    assert file.read_text() == whole
    assert not part.exists()


def test_an_export_that_never_comes_gives_up_and_keeps_what_it_has(
    cli: Cli, shop: Shop, proxy: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_BREAKS_MAX", 3)
    job_id = settled_job(shop, 500)
    proxy.script(
        [Fault.HALF_BODY, *[Fault.RESET] * 50], lambda request: "/export" in request.target
    )
    ran = cli("jobs", "export", job_id, "-o", str(tmp_path / "out"))
    assert ran.code == 3
    (part,) = tmp_path.glob("out*")
    assert part.name == f"out.{job_id}.part"
    assert part.stat().st_size > 0
    assert cli("jobs", "export", job_id).code == 3  # nor to standard output


def test_results_that_are_not_there_yet_are_a_conflict(cli: Cli, shop: Shop) -> None:
    job_id = shop.processing(make_chunk(3)).job_id
    assert cli("jobs", "export", job_id).code == 7


def test_a_job_is_cancelled_and_exported(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    job_id = shop.processing(make_chunk(3)).job_id
    assert cli.done("jobs", "cancel", job_id, "--json").json["status"] == "cancelled"
    assert cli("jobs", "watch", job_id).code == 1
    cli.done("jobs", "export", job_id, "-o", str(tmp_path / "none"))
    assert (tmp_path / "none").read_bytes() == b""


def test_credentials_are_deleted(cli: Cli, shop: Shop) -> None:
    job = shop.submit(credentials=b"{}", manifest_url="s3://b/m.jsonl")
    assert shop.value("select credentials from jobs where job_id = %s", job.job_id)
    ran = cli.done("jobs", "delete-credentials", job.job_id)
    assert job.job_id in ran.err
    assert shop.value("select credentials from jobs where job_id = %s", job.job_id) is None


@pytest.mark.parametrize("command", ["show", "watch", "errors", "export", "cancel", "deliver"])
def test_an_empty_id_is_no_list(cli: Cli, command: str) -> None:
    ran = cli("jobs", command, "")
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert "An id is empty." in ran.err


def test_a_delivery_that_failed_is_tried_again(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    job_id = settled_job(shop, delivery=DELIVERY)
    job = shop.job(job_id)
    shop.begin_delivery(job)
    shop.do(jobs.refuse_delivery, job.job_no, "no_such_bucket", "There is no such bucket.")
    ran = cli("jobs", "watch", job_id)
    assert (ran.code, "There is no such bucket." in ran.err) == (1, True)
    elsewhere = ("jobs", "deliver", job_id, "--delivery", "s3://other/place", "--json")
    assert cli(*elsewhere).code == 4
    credentials = tmp_path / "credentials.json"
    credentials.write_text(
        json.dumps({"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"})
    )
    ran = cli.done(*elsewhere, "--credentials-file", str(credentials))
    assert ran.json["delivery"]["status"] == "pending"
    target = shop.job(job_id).delivery
    assert target is not None
    assert target.bucket == "other"
    assert cli("jobs", "deliver", job_id).code == 7


def test_quality_is_shown(cli: Cli, shop: Shop) -> None:
    job_id = settled_job(shop)
    assert cli.done("jobs", "quality", job_id, "--json").json
    assert cli.done("jobs", "quality", job_id).out


def test_what_is_inferred_is_shown_and_its_changes_are_written(
    cli: Cli, shop: Shop, tmp_path: Path
) -> None:
    job = make_mixed_job(shop, "completed", options=3)
    quality = ("jobs", "quality", job.job_id)
    found = cli.done(*quality, "--method", "one_coin", "--json").json["inference"]
    shown = cli.done(*quality, "--method", "one_coin").out
    for words in ("posterior", "accuracy", found["changes"][0]["task_id"], "one_coin"):
        assert words in shown
    assert "one_coin" not in cli.done(*quality).out
    file = tmp_path / "changes.jsonl"
    assert cli.done(*quality, "--method", "one_coin", "-o", str(file)).out == ""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == found["labels_changed"] + found["labels_added"]
    assert all(change in lines for change in found["changes"])
    assert cli(*quality, "-o", str(file)).code == 2


def test_tasks_are_submitted_and_followed(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    task_id = cli.done(
        "tasks", "submit", "https://img.example.com/1.jpg", *ASKED, "--threshold", "3"
    ).out.strip()
    assert task_id in cli.done("tasks", "show", task_id).out
    assert cli.done("tasks", "result", task_id, "--json").json["status"] == "in_progress"
    settle(shop)
    assert cli.done("tasks", "result", task_id, "--json").json["consensus_label"] == "cat"
    file = tmp_path / "tasks.jsonl"
    task = {"data_url": "https://img.example.com/2.jpg", **JOB_BODY, "type": "image_classification"}
    del task["manifest_url"]
    file.write_text(f"{json.dumps(task)}\n\n{json.dumps(task)}\n")
    task_ids = cli.done("tasks", "batch", str(file)).out.split()
    assert len({task_id, *task_ids}) == 3


def test_an_endpoint_is_registered_told_and_removed(cli: Cli, shop: Shop) -> None:
    made = cli.done(
        "webhooks", "add", "https://a.invalid/", "--event", "job.completed", "--json"
    ).json
    assert made["secret"].startswith("whsec_")
    assert made["webhook_id"] in cli.done("webhooks", "list").out
    settled_job(shop)
    page = cli.done("webhooks", "deliveries", made["webhook_id"], "--json").json
    (entry,) = page["deliveries"]
    assert entry["event"] == "job.completed"
    assert "job.completed" in cli.done("webhooks", "deliveries", made["webhook_id"]).out
    assert cli("webhooks", "replay", entry["delivery_id"]).code in {0, 7}  # it may still be trying
    rotated = cli.done("webhooks", "rotate", made["webhook_id"]).out.strip()
    default = cli.done("webhooks", "default-secret").out.strip()
    assert len({made["secret"], rotated, default}) == 3
    cli.done("webhooks", "remove", made["webhook_id"])
    assert cli.done("webhooks", "list", "--json").json == {"webhooks": []}


REFUSED: list[tuple[tuple[str, ...], int, str]] = [
        (("jobs", "show", "job_unknown"), 6, "no such job"),
        (("jobs", "show", "../customers?x=1"), 6, ""),
        (("jobs", "submit", MANIFEST, "--question", "What?", "--option", "one"), 4, "options"),
        (("jobs", "submit", MANIFEST, *ASKED, "--delivery", "ftp://x"), 2, "s3://bucket/prefix"),
        (("jobs", "submit", MANIFEST, *ASKED, "--file", "/nonexistent"), 2, "/nonexistent"),
        (("jobs", "submit", MANIFEST, *ASKED, "--file", "/dev/null"), 2, "/dev/null"),
        (("jobs", "list", "--status", "sleeping"), 2, "accepted"),
        (("jobs", "list", "--profile", "nobody"), 2, "profiles set nobody"),
        (("jobs", "sing"), 2, "sing"),
        (("jobs", "show"), 2, "job-id"),
        (("jobs", "errors", "job_unknown"), 6, "no such job"),
        (("tasks", "show", "task_unknown"), 6, "no such task"),
        (("tasks", "batch", "/nonexistent"), 2, "/nonexistent"),
        (("webhooks", "remove", "wh_unknown"), 6, "no such webhook"),
        (("webhooks", "add", "gopher://x"), 4, "callback_url"),
]  # fmt: skip


def test_what_cannot_be_done_is_said_with_a_code_of_its_own(cli: Cli) -> None:
    for arguments, code, said in REFUSED:
        ran = cli(*arguments)
        assert (ran.code, ran.out) == (code, ""), arguments
        assert said in ran.err
        assert "Traceback" not in ran.err


def test_an_environment_that_does_not_do(cli: Cli, server: str, shop: Shop) -> None:
    good = {
        "REFINERY_API_URL": server,
        "REFINERY_API_KEY": shop.do(customers.add_customer_key, shop.customer_id),
    }
    for name, value, code in (
        ("REFINERY_API_KEY", "rk_wrong", 5),
        ("REFINERY_API_KEY", "schlüssel", 2),
        ("REFINERY_API_KEY", None, 2),
        ("REFINERY_API_URL", None, 2),
        ("REFINERY_API_URL", "localhost:8000", 2),
        ("REFINERY_API_URL", "http://127.0.0.1:1", 3),
    ):
        cli.say(**{**good, name: value})
        ran = cli("jobs", "list")
        assert (ran.code, ran.out) == (code, ""), value
        assert ran.err.startswith("error: ")


def test_what_is_safe_is_tried_again(cli: Cli, proxy: FaultyStore, shop: Shop) -> None:
    faults = [Fault.RESET, Fault.BAD_GATEWAY, Fault.UNAVAILABLE, Fault.TOO_MANY_REQUESTS]
    for arguments in (
        ("jobs", "list"),
        ("jobs", "submit", MANIFEST, *ASKED),
        ("tasks", "submit", "https://img.example.com/1.jpg", *ASKED),
    ):
        proxy.script([Fault.HALF_BODY, *faults[1:]], lambda _: True)
        cli.done(*arguments)
    assert shop.value("select count(*) from jobs where manifest_url is not null") == 1
    assert len(shop.tasks()) == 1
    proxy.script(faults, lambda _: True)
    assert cli("webhooks", "add", "https://a.invalid/").code == 3  # it might be there twice


def test_an_api_that_says_when_is_asked_again_then(
    cli: Cli, proxy: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    proxy.script([Refusal(429, "slow", 7), Refusal(503, "down", 3600)], lambda _: True)
    ran = cli.done("jobs", "list")
    assert waits == [7, 60]
    said = re.findall(r"trying again in (\d+) s", ran.err)
    assert [int(wait_s) for wait_s in said] == waits


def test_a_profile_stands_in_for_the_environment(
    cli: Cli, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.done("profiles", "set")  # of the environment
    monkeypatch.setattr("sys.stdin", io.StringIO())
    cli.done("profiles", "set", "other one", "--api-url", "http://127.0.0.1:1")
    file = tmp_path / "config" / "refinery" / "profiles.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert cli.done("profiles", "list", "--json").json == {
        "default": {"api_url": server},
        "other one": {"api_url": "http://127.0.0.1:1"},
    }
    assert "rk_" not in cli.done("profiles", "list").out
    cli.say(REFINERY_API_URL=None, REFINERY_API_KEY=None)
    cli.done("jobs", "list")
    assert cli("jobs", "list", "--profile", "other one").code == 3
    cli.say(REFINERY_PROFILE="other one")
    assert cli("jobs", "list").code == 3
    cli.done("profiles", "remove", "other one")
    assert cli("jobs", "list").code == 2
    assert cli("profiles", "remove", "other one").code == 6
    file.write_text("[default\n")
    ran = cli("jobs", "list", "--profile", "default")
    assert (ran.code, str(file) in ran.err) == (2, True)


def test_every_command_has_json_and_help(cli: Cli) -> None:
    for group, commands in {
        "jobs": "submit list show watch errors export cancel deliver delete-credentials quality disagreements",
        "tasks": "submit batch show result",
        "webhooks": "add list remove deliveries replay rotate default-secret",
    }.items():
        for command in commands.split():
            text = cli.done(group, command, "--help").out
            assert "--json" in text
            assert "--profile" in text


def test_the_shell_completes(cli: Cli, tmp_path: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        file = tmp_path / shell
        cli.done("--install-completion", "--shell", shell, "--output", str(file))
        text = file.read_text()
        assert "webhooks" in text
        assert "idempotency-key" in text
