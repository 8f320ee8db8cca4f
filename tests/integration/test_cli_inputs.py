"""No command ends in a traceback: any input, any standard streams, any failure of a file."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from api.cli import client, export
from api.cli.exits import Exit
from api.cli.output import printable
from blocks.store import customers
from tests.support.api_world import JOB_BODY
from tests.support.cli import ASKED, MANIFEST, Cli, Ran, settled_job
from tests.support.faulty_store import Fault, FaultyStore
from tests.support.servers import KEY
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DOCUMENTED = {0, *Exit}
TASK = {
    "type": "image_classification",
    "data_url": "https://img.example.com/2.jpg",
    "label_spec": JOB_BODY["label_spec"],
}
HEAD = json.dumps(TASK).encode()[:-1] + b', "metadata": '
# What a file of tasks may hold, and what is said of it; "": it is taken.
CONTENTS: list[tuple[bytes, str]] = [
    (b'{"s": "\xe2\x80\xa8\xe2\x80\xa9\xc2\x85"}', ""),
    (b'{"b": 1,  "a": 1.10000000000000000000000000001}', ""),
    (b'{"n": 12345678901234567890123, "s": "\\u2028\\/"}', ""),
    (b'{"n": 1E+300, "m": -0.0}', ""),
    (
        b'{"n": 1e400}',
        "tasks[1].metadata: The metadata is not valid JSON: it has a number that is out of range",
    ),
    (b'{"\\ud83d\\ude00": "\xf0\x9f\x98\x80"}', ""),
    (b'{"s": "\\ud800"}', "line 2: An escape such as"),
    (b'{"s": "\xed\xa0\x80"}', "line 2: This is not UTF-8"),
    (b'{"s": "\xe9"}', "line 2: This is not UTF-8"),
    (b'{"n": NaN}', "line 2: This is not JSON: NaN"),
    (b'{"n": Infinity}', "line 2: This is not JSON: Infinity"),
    (b'{"s": "\x00"}', "line 2, column "),
    (b'{"s": "\\u0000"}', "U+0000"),
    (b"[" * 100_000 + b"]" * 100_000, "line 2: It is nested too deeply"),
    (b"[" * 500 + b"]" * 500, "metadata"),
    (b'{"s"', "line 2, column "),
    (b"[]", "tasks[1].metadata"),
]


def check(ran: Ran) -> Ran:
    """Pass if a command ended as it should: with a code that is documented, and a sentence if not 0."""
    assert ran.code in DOCUMENTED
    assert "Traceback" not in ran.out + ran.err
    assert (ran.code == 0) or len(ran.err.split()) > 2, ran
    return ran


@pytest.mark.parametrize("content, said", CONTENTS, ids=lambda each: repr(each)[:40])
def test_a_file_of_tasks_is_taken_byte_for_byte_or_refused_with_the_place(
    content: bytes, said: str, cli: Cli, shop: Shop, tmp_path: Path
) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(TASK).encode() + b"\r\n" + HEAD + content + b"}\n"
    )
    ran = check(cli("tasks", "batch", str(file)))
    stored = [row["metadata"] for row in shop.tasks()]
    if said:
        assert ran.code in {Exit.USAGE, Exit.REFUSED}
        assert said in ran.err
        assert stored == []
        return
    assert (ran.code, stored) == (0, [None, content.decode()]), ran.err
    task_id = ran.out.split()[1]
    assert printable(content.decode()) in cli.done("tasks", "show", task_id).out
    text = cli.done("tasks", "show", task_id, "--json").out
    assert all(part.strip() in text for part in content.decode().strip("{}").split(", "))


@pytest.mark.parametrize("option", ["--file", "--credentials-file"])
def test_the_body_of_a_job_is_refused_with_the_place(
    option: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "job.json"
    for content in (b"", b"\xff", b"[]", b"{", b'{"a": NaN}', b"[" * 100_000, b'{"a": "\\udc00"}'):
        file.write_bytes(content)
        ran = check(cli("jobs", "submit", MANIFEST, *ASKED, option, str(file)))
        assert (ran.code, f"{file}, line 1" in ran.err) == (Exit.USAGE, True)
    for name in (str(tmp_path), str(tmp_path / "none"), "/proc/self/mem", ""):
        ran = check(cli("jobs", "submit", MANIFEST, *ASKED, option, name))
        assert (ran.code, (name or ".") in ran.err) == (Exit.USAGE, True)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[]")))
    ran = check(cli("jobs", "submit", MANIFEST, *ASKED, option, "-"))
    assert (ran.code, "standard input, line 1: This must be" in ran.err) == (Exit.USAGE, True)
    for content, field in (
        (b'{"priority": 1e400}', "a number that is out of range"),
        (b'{"\\u0000": 1}', "U+0000"),
    ):
        file.write_bytes(content)
        ran = check(cli("jobs", "submit", MANIFEST, *ASKED, option, str(file)))
        assert (ran.code, field in ran.err) == (Exit.REFUSED, True), ran.err


@pytest.mark.parametrize("word", ["\udce9", "\x1b[/red]:dog:", "é\n\u2028", "x" * 5000])
def test_any_word_may_stand_anywhere(word: str, cli: Cli, tmp_path: Path) -> None:
    url = "https://img.example.com/1.jpg"
    for arguments in (
        ("jobs", "submit", word, *ASKED),
        ("jobs", "submit", MANIFEST, *ASKED, "--idempotency-key", word),
        ("jobs", "submit", MANIFEST, "--question", word, "--option", word),
        ("jobs", "show", word),
        ("jobs", "watch", word),
        ("jobs", "errors", word, "-o", str(tmp_path / "out")),
        ("jobs", "export", word, "-o", str(tmp_path / "out")),
        ("jobs", "export", "job_1", "-o", str(tmp_path / word)),
        ("jobs", "list", "--status", word),
        ("jobs", "list", "--limit", word),
        ("jobs", "list", "--profile", word),
        ("jobs", word),
        (word,),
        ("tasks", "submit", url, "--question", word, "--option", "a"),
        ("tasks", "batch", f"/nonexistent/{word}"),
        ("webhooks", "add", word),
        ("webhooks", "remove", word),
        ("profiles", "remove", word),
        ("verify", f"/nonexistent/{word}"),
    ):
        check(cli(*arguments))
    assert list(tmp_path.glob("out*")) == []


def test_what_customers_wrote_is_no_markup_and_no_command(cli: Cli, shop: Shop) -> None:
    for question in ("[/red] :dog: [b]", "\x1b]0;owned\x07?"):
        job_id = shop.processing(make_chunk(1), question=question).job_id
        shown = cli.done("jobs", "show", job_id).out
        assert question.replace("\x1b", r"\x1b").replace("\x07", r"\x07") in shown


@pytest.mark.parametrize(
    "content",
    [
        b"[default",
        b"\xff",
        b"default = 1",
        b"[default]\napi_url = 1",
        b"[default]\napi_url = ''",
        b"\x00",
    ],
)
def test_profiles_that_cannot_be_read_are_said(content: bytes, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "config" / "refinery" / "profiles.toml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    for arguments in (("jobs", "list"), ("profiles", "list"), ("profiles", "set")):
        ran = check(cli(*arguments))
        assert (ran.code, str(file) in ran.err) == (Exit.USAGE, True)
        assert "Expected" not in ran.err.replace("Expected '", "")  # TOML's own word, not msgspec's


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://127.0.0.1:99999",
        "ftp://a",
        "http://",
        "x",
        "http://a b",
        "http://127.0.0.1:1/\udcff",
    ],
)
def test_an_address_that_is_none_is_said(
    url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_TRIES", 1)
    cli.say(REFINERY_API_URL=url)
    assert check(cli("jobs", "list")).code in {Exit.USAGE, Exit.UNREACHABLE}


@pytest.mark.parametrize("arguments", [("customers", "list"), ("keys", "list"), ("annotators", "list"), ("streams", "list"), ("customers", "add", "A"), ("db", "migrate"), ("keys", "revoke", "key_1")])  # fmt: skip
def test_a_database_that_is_not_there_is_said(arguments: tuple[str, ...], cli: Cli) -> None:
    for url in ("postgresql://nobody@127.0.0.1:1/none", "rubbish", "postgresql://127.0.0.1:x/"):
        cli.say(REFINERY_DATABASE_URL=url)
        assert check(cli(*arguments)).code == Exit.FAILED


def test_customers_and_keys_are_listed(cli: Cli, shop: Shop) -> None:
    cli.say(REFINERY_DATABASE_URL=shop.url, ASG_ENCRYPTION_KEY=KEY)
    assert "Acme" in cli.done("customers", "list").out
    assert shop.customer_id in cli.done("keys", "list").out
    ran = check(cli("customers", "add", "caf\udce9"))
    assert (ran.code, "UTF-8" in ran.err) == (Exit.USAGE, True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take away everybody's right to write; root has it nevertheless."""
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("command", ["errors", "export"])
def test_a_file_is_not_touched_before_there_is_an_answer(
    command: str,
    cli: Cli,
    shop: Shop,
    proxy: FaultyStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "_BREAKS_MAX", 1)
    folder = tmp_path / "out"
    folder.mkdir()
    file = folder / "file"
    force = ("--force",) if command == "export" else ()
    job_id = settled_job(shop)

    def run(job_id: str, **environment: str) -> Ran:
        cli.say(**environment)
        ran = check(cli("jobs", command, job_id, "-o", str(file), *force))
        assert {path.name for path in folder.iterdir()} == ({"file"} if file.exists() else set())
        return ran

    for before in (None, b"before\n"):
        if before is not None:
            file.write_bytes(before)
        assert run("job_unknown").code == Exit.NOT_FOUND
        assert run("../../x").code == Exit.NOT_FOUND
        for fault in (Fault.RESET, Fault.BAD_GATEWAY):
            proxy.script([fault], lambda request: "/jobs/" in request.target)
            assert run(job_id).code == Exit.UNREACHABLE
        assert (file.read_bytes() if file.exists() else None) == before
    assert run(job_id).code == 0
    assert file.read_bytes() not in {b"", b"before\n"}
    with read_only(folder):
        ran = check(cli("jobs", command, job_id, "-o", str(folder / "other"), *force))
        assert ran.code == (0 if os.geteuid() == 0 else Exit.FAILED)


def process(
    *arguments: str,
    environment: Mapping[str, str],
    stdout: int | IO[bytes] = subprocess.PIPE,
    shell: str = "",
) -> Ran:
    """How a command ends as a process, with what a shell does with its streams."""
    command = f'exec "$0" -m deployments "$@" {shell}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    return Ran(done.returncode, (done.stdout or b"").decode(encoding), done.stderr.decode(encoding))


@pytest.fixture
def environment(cli: Cli) -> dict[str, str]:
    """What the command has in its environment, for a process."""
    names = ("REFINERY_API_URL", "REFINERY_API_KEY", "HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
    return {name: os.environ[name] for name in names}


def test_any_terminal_can_show_any_text(environment: dict[str, str], shop: Shop) -> None:
    job_id = shop.processing(make_chunk(1), question="Žluťoučký 😀?").job_id
    for locale, said in (
        ({"LANG": "C"}, "Žluťoučký 😀?"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, r"\u017dlu\u0165ou\u010dk\xfd \U0001f600?"),
    ):
        assert said in check(process("jobs", "show", job_id, environment=environment | locale)).out
    for encoding in ("ascii", "latin-1"):
        given = environment | {"PYTHONIOENCODING": encoding}
        ran = check(process("jobs", "show", job_id, "--json", environment=given))
        assert ran.json["label_spec"]["question"] == "Žluťoučký 😀?"


def test_standard_output_that_is_closed_or_full_is_said(
    environment: dict[str, str], shop: Shop
) -> None:
    job_id = settled_job(shop)
    for arguments, shell, said in (
        (("jobs", "list"), ">/dev/full", "standard output: No space"),
        (("jobs", "export", job_id), ">&-", "standard output: Bad file"),
    ):
        ran = check(process(*arguments, environment=environment, shell=shell))
        assert (ran.code, ran.err.count("\n"), said in ran.err) == (Exit.FAILED, 1, True), ran
    assert check(process("jobs", "list", environment=environment, shell="2>&-")).code == 0


def test_standard_input_that_is_closed_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, code, said in (
        (("tasks", "batch", "-"), Exit.USAGE, "standard input: There is nothing in it"),
        (("jobs", "submit", "--file", "-"), Exit.USAGE, "standard input, line 1"),
        (("annotate",), Exit.UNAUTHORIZED, "annotator"),
        (("profiles", "set"), 0, "kept as default"),
    ):
        monkeypatch.setattr("sys.stdin", None)  # what Python makes of it
        ran = check(cli(*arguments))
        assert (ran.code, ran.err.count("\n"), said in ran.err) == (code, 1, True), ran
    cli.say(REFINERY_API_KEY=None)
    monkeypatch.setattr("sys.stdin", None)
    assert "No key was typed" in check(cli("profiles", "set", "other")).err


def test_a_reader_that_has_had_enough_ends_it_quietly(
    environment: dict[str, str], shop: Shop
) -> None:
    job_id = settled_job(shop)
    for arguments in (("jobs", "list"), ("jobs", "export", job_id), ("--help",)):
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as pipe:
            ran = process(*arguments, environment=environment, stdout=pipe)
        assert (ran.code, ran.err) == (Exit.FAILED, ""), arguments


def test_results_go_on_to_what_stands_for_another_file(
    environment: dict[str, str], shop: Shop, tmp_path: Path
) -> None:
    job_id = settled_job(shop)
    file = tmp_path / "all"
    file.write_bytes(b"before\n")
    with file.open("ab") as appended:
        for command in ("export", "errors"):
            ran = process(
                "jobs",
                command,
                job_id,
                "-o",
                "/dev/stdout",
                environment=environment,
                stdout=appended,
            )
            assert check(ran).code == 0
    lines = file.read_bytes().splitlines()
    assert (lines[0], len(lines)) == (b"before", 1 + 10 + 2)


def test_ctrl_c_ends_it_quietly(environment: dict[str, str], shop: Shop) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "deployments", "jobs", "submit", "--watch", MANIFEST, *ASKED],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        assert running.stderr.readline().startswith(b"job_")  # it watches
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (Exit.INTERRUPTED, b"")
    assert b"Traceback" not in err


def test_keys_are_read_from_any_standard_input(
    cli: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.say(REFINERY_DATABASE_URL=shop.url, ASG_ENCRYPTION_KEY=KEY)
    for content in (b"", b"\xff\xfe\n", b"\x00", b"x" * 100_000):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
        assert check(cli("keys", "revoke")).code == Exit.NOT_FOUND
    assert shop.do(customers.list_keys)


def test_a_user_without_a_home_is_told_what_to_set(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(_: int) -> None:
        raise KeyError("There is no such user.")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    cli.say(HOME=None, XDG_CONFIG_HOME=None, XDG_DATA_HOME=None, REFINERY_API_URL=None)
    ran = check(cli("jobs", "list"))
    assert (ran.code, "REFINERY_API_URL" in ran.err) == (Exit.USAGE, True)


@pytest.mark.parametrize("uri", ["s3://a-bucket/x", "s3://", "ftp://x", "file:///x", ""])
def test_a_delivery_that_cannot_be_read_is_said(
    uri: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path.home())
    cli.say(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, AWS_EC2_METADATA_DISABLED="true")
    ran = check(cli("verify", uri, "--endpoint-url", "http://127.0.0.1:9"))
    assert (ran.code, uri in ran.err) == (Exit.USAGE, True)
