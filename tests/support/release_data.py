"""Make the data of a release, which all later versions have to upgrade: `python -m tests.support.release_data 0.2.0`.

A database is filled by the functions and routes of the service, with jobs in all states, and dumped to
tests/releases/<version>/: `data.sql.gz`, as SQL that any client can run, and `answers.json.gz`, what the API
answered about it.
"""

import gzip
import subprocess
import sys
import tempfile
import tomllib
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from litestar.testing import TestClient

from blocks.domain.ids import task_id
from blocks.domain.model import SkipReason
from blocks.secrets.vault import Vault
from blocks.settings import Settings
from blocks.store import archive, chunks, deleted_jobs, jobs, streams
from blocks.store.database import Database
from blocks.store.jobs import Job
from blocks.store.label_changes import Skip
from blocks.store.streams import Manifest, Stream
from deployments.embedded.guard import Guard
from deployments.embedded.ports import Ports, free_port
from deployments.embedded.postgres import Postgres
from deployments.embedded.postgres_programs import programs_folder
from deployments.embedded.processes import ChildProcess
from deployments.registered import REPOSITORY
from tests.support.api_world import Api, make_app
from tests.support.mixed_job import make_mixed_job
from tests.support.servers import DatabaseServer
from tests.support.store_shop import DELIVERY, OPTIONS, Shop, make_chunk
from tests.support.task_rows import list_tasks
from tests.support.weighted_job import make_weighted_job

RELEASES = REPOSITORY / "tests" / "releases"
KEY = "00" * 32
"""The encryption key of the data, which has no secret of anybody."""
SECRET = b'{"access_key_id":"id","secret_access_key":"not a secret","region":"eu-west-1"}'

_TASK = {
    "type": "image_classification",
    "data_url": "https://images.example/1.jpg",
    "label_spec": {"question": "What is it?", "options": OPTIONS},
}
_OF_A_JOB = ("", "/errors", "/export", "/disagreements", "/delivery/objects", "/quality")


class Release(msgspec.Struct, frozen=True):
    """What was known of the data when it was made."""

    key: str
    """The customer's API key."""
    half_read: str
    """The id of a job whose manifest was read in part: its chunks 0 and 2 of 3 are there."""
    answers: dict[str, tuple[int, str]]
    """What GET has answered, by the path: a status and a text."""


class DataMade(msgspec.Struct, frozen=True):
    """The two files of a release."""

    sql: str
    release: Release


def settings_of(url: str) -> Settings:
    """Settings of an API on the data, with a Prefect that is not there."""
    prefect = f"http://127.0.0.1:{free_port()}/api"
    return Settings(
        database_url=url, encryption_key=KEY, egress_allow="127.0.0.1", prefect_api_url=prefect
    )


def make(url: str) -> DataMade:
    """Fill an empty database that has the schema, and dump it."""
    vault = Vault([bytes.fromhex(KEY)])
    with (
        Database(url, connections_max=4) as database,
        TestClient(make_app(settings_of(url))) as client,
    ):
        shop = Shop(database, url, vault)
        api = Api(client, shop)
        half_read = _fill(shop, api)
        key = api.customer["Authorization"].removeprefix("Bearer ")
        answers = {path: ask(client, key, path) for path in _paths(shop)}
    return DataMade(_dump(url), Release(key, half_read.job_id, answers))


def ask(client: TestClient[Any], key: str, path: str) -> tuple[int, str]:
    """What the API answers the customer."""
    answer = client.get(path, headers=Api.bearer(key))
    return answer.status_code, answer.text


def write(made: DataMade, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "data.sql.gz").write_bytes(gzip.compress(made.sql.encode(), mtime=0))
    answers = msgspec.json.encode(made.release)
    (folder / "answers.json.gz").write_bytes(gzip.compress(answers, mtime=0))


def read(folder: Path) -> DataMade:
    sql = gzip.decompress((folder / "data.sql.gz").read_bytes()).decode()
    answers = gzip.decompress((folder / "answers.json.gz").read_bytes())
    return DataMade(sql, msgspec.json.decode(answers, type=Release))


def restore(made: DataMade, url: str) -> None:
    """Restore the data into an empty database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(made.sql.encode())


def _fill(shop: Shop, api: Api) -> Job:
    """Make jobs in all states, and what else the service keeps; return the job that is half read."""
    make_weighted_job(shop, "completed", tasks=60)  # it takes all tasks of the store for its own
    make_mixed_job(shop, "completed", options=5)
    shop.run("update jobs set completed_at = now() - interval '2 days'")
    while shop.do(archive.archive_some, after_s=3600):
        pass
    for end in (_deliver, _refuse, _label_in_part, _cancel, _fail, _review):
        end(shop)
    shop.submit(credentials=SECRET, callback_url="https://hooks.example/jobs")
    shop.submit(credentials=SECRET, delivery=DELIVERY)
    half_read = shop.processing(make_chunk(20, bad=2), ingested=False, credentials=SECRET)
    shop.do(chunks.commit, half_read.job_no, 2, make_chunk(20, start=10**6), None)
    stream = Stream(shop.customer_id, "nightly")
    shop.do(streams.begin, stream, datetime.now(UTC))
    shop.do(streams.submit, stream, Manifest("s3://b/a.jsonl", "v1"), shop.vault, shop.new_job())
    gone = shop.processing(make_chunk(5))
    shop.do(jobs.cancel, gone.job_no)
    assert shop.do(deleted_jobs.delete, [gone.job_no]) == 1  # nothing is removed of its rows yet
    hook = {"callback_url": "https://127.0.0.1:1/all", "events": ["job.completed", "task.settled"]}
    assert api.post("/v1/webhooks", hook).status_code == 201
    assert api.submit(**{"Idempotency-Key": "one"}).status_code == 202
    for n in range(3):
        task = _TASK | {"data_url": f"https://images.example/{n}.jpg"}
        assert api.post("/v1/tasks", task).status_code == 202
    return half_read


def _say(shop: Shop, job: Job, *options: str) -> None:
    """Have an annotator for each of the options give it to every task."""
    for option in options:
        annotator = shop.annotator()
        tasks = shop.claim(annotator, 500, job_id=job.job_id)
        shop.label(annotator, *[(task.task_id, option) for task in tasks])


def _deliver(shop: Shop) -> None:
    job = shop.processing(make_chunk(30, bad=1), credentials=SECRET, delivery=DELIVERY)
    _say(shop, job, "cat", "cat", "dog")
    shop.begin_delivery(job)
    shop.do(jobs.finish_delivery, job.job_no, 1)


def _refuse(shop: Shop) -> None:
    job = shop.processing(make_chunk(3), credentials=SECRET, delivery=DELIVERY)
    _say(shop, job, "cat", "cat", "cat")
    shop.begin_delivery(job)
    shop.do(jobs.refuse_delivery, job.job_no, "access_denied", "The bucket refuses.")


def _label_in_part(shop: Shop) -> None:
    job = shop.processing(make_chunk(40, gold={1: 1, 5: 2}), callback_url="https://hooks.example/2")
    first, second = shop.annotators(2)
    held = shop.claim(first, 20, job_id=job.job_id)
    shop.label(first, *[(task.task_id, "cat") for task in held[:10]])
    shop.enter(first, Skip(held[10].task_id, SkipReason.NONE_OF_THESE))
    shop.release(first, held[11].task_id)
    others = shop.claim(second, 30, job_id=job.job_id)
    shop.label(second, *[(task.task_id, "dog") for task in others[:12]])


def _cancel(shop: Shop) -> None:
    job = shop.processing(make_chunk(10))
    _say(shop, job, "cat")
    shop.do(jobs.cancel, job.job_no)


def _fail(shop: Shop) -> None:
    job = shop.processing(make_chunk(10), ingested=False)
    shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed.")


def _review(shop: Shop) -> None:
    job = shop.processing(make_chunk(6), review_no_consensus=True)
    _say(shop, job, *OPTIONS)


def _paths(shop: Shop) -> list[str]:
    query = "select job_id from jobs where manifest_url is not null order by job_no"
    ids = [row["job_id"] for row in shop.run(query)]
    tasks = [
        task_id(row["job_id"], row["task_key"], row["task_no"])
        for row in list_tasks(shop.run, "j.manifest_url is null")
    ]
    return [
        *(f"/v1/jobs/{job_id}{what}" for job_id in ids for what in _OF_A_JOB),
        *(f"/v1/tasks/{task_id}" for task_id in tasks),
        "/v1/jobs",
        "/v1/webhooks",
    ]


def _dump(url: str) -> str:
    options = ("--no-owner", "--no-privileges", "--inserts", "--rows-per-insert=100")
    command = [str(programs_folder() / "pg_dump"), *options, url]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # Words for psql, and not SQL.
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("\\"))


def main(wanted: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    if project["version"] != wanted:
        sys.exit(
            f"error: this is {project['version']}, and not {wanted}: see docs/CONTRIBUTING.md."
        )
    with tempfile.TemporaryDirectory(prefix="refinery-release-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        guard, postgres = Guard(), Postgres(folder, Ports(folder / "ports").port("postgres"))
        guard.start()
        child = ChildProcess(postgres.program(), folder, guard)
        child.start()
        try:
            with closing(DatabaseServer(postgres)) as server:
                write(make(server.clone()), RELEASES / wanted)
        finally:
            child.stop()
            guard.stop()
    sys.stdout.write(f"made {RELEASES / wanted}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
