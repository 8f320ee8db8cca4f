"""Make jobs in processing, with any number of tasks, without a manifest and a flow."""

import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
import polars as pl

from benchmarks.annotators import answer, true_option
from benchmarks.servers import Databases
from benchmarks.wire import Connection
from blocks.domain.ids import task_no
from blocks.domain.model import Pin, TaskType
from blocks.lines.validated_lines import TASK_COLUMNS, Batch
from blocks.secrets.vault import Vault
from blocks.store import chunks, customers, jobs
from blocks.store.database import Database
from blocks.store.jobs import Job, NewJob

OPTIONS = ["cat", "dog"]
# About as many as a chunk has of lines of 140 bytes.
_CHUNK_TASKS = 50_000
_LINE_BYTES = 140
_CLAIM_TASKS = 500
_TALLIES = """
insert into tallies (job_no, task_no, labelled_at, latest, threshold, places, outcome,
                     stop_early, votes, annotators)
select job_no, task_no(chunk_no, n), now(), 1, 3, 3, 1, false, '{2,1}', '{1,2,3}'
from chunks cross join generate_series(0, tasks - 1) n where job_no = %s order by chunk_no, n
"""


def make_job(
    databases: Databases,
    tasks: int,
    threshold: int,
    *,
    stop_early: bool = False,
    gold_every: int = 0,
    **changes: Any,
) -> Job:
    """Make a job through the store, as a flow does; leave its tables as autovacuum would.

    One task in `gold_every` is gold; `changes` are fields of the job.
    """
    with Database(databases.database_url, connections_max=1) as database:
        vault = Vault([bytes.fromhex(databases.stack.encryption_key)])
        with database.transaction() as tx:
            new = make_new_job(
                customers.add_customer(tx, "Bench"), threshold, stop_early=stop_early
            )
            new = msgspec.structs.replace(new, **changes)
            job_id, _ = jobs.submit(tx, new, vault)
            job = jobs.get(tx, job_id)
            assert job is not None  # it was submitted
            jobs.begin(tx, job.job_no)
            jobs.pin(tx, job.job_no, Pin(tasks * _LINE_BYTES, '"etag"'), _CHUNK_TASKS * _LINE_BYTES)
        for chunk_no, first in enumerate(range(0, tasks, _CHUNK_TASKS)):
            frame = make_frame(first, min(_CHUNK_TASKS, tasks - first))
            gold = _gold(job, chunk_no, frame, gold_every) if gold_every else {}
            with database.transaction() as tx:
                if gold:
                    jobs.mark_gold(tx, job.job_no)
                batch = Batch(len(frame), frame, [], gold=gold)
                chunks.commit(tx, job.job_no, chunk_no, [batch], None)
        with database.transaction() as tx:
            jobs.finish_ingestion(tx, job.job_no)
    settle_down(databases)
    return job


def settle_all(databases: Databases, job: Job) -> None:
    """Give each task three labels, two of them for the first option, and complete the job."""
    with databases.connect() as connection:
        connection.execute(_TALLIES, [job.job_no])
    complete(databases, job)


def complete(databases: Databases, job: Job) -> None:
    """Record that all tasks of a job have settled, and that it is over."""
    with databases.connect() as connection:
        connection.execute("update chunks set settled = tasks where job_no = %s", [job.job_no])
        connection.execute(
            "update jobs set status = 'completed', completed_at = now() where job_no = %s",
            [job.job_no],
        )
    settle_down(databases)


def add_annotators(databases: Databases, count: int, name: str = "annotator") -> list[str]:
    """Return the keys of new annotators."""
    with (
        Database(databases.database_url, connections_max=1) as database,
        database.transaction() as tx,
    ):
        return [customers.add_annotator_key(tx, f"{name} {n}")[1] for n in range(count)]


def label_all(databases: Databases, keys: Sequence[str]) -> None:
    """Let each annotator label all that there is for them, one after the other, over HTTP."""
    api = urlsplit(databases.stack.api_url)
    claim = msgspec.json.encode({"limit": _CLAIM_TASKS})
    for key in keys:
        generator = random.Random(key)
        with Connection(str(api.hostname), int(api.port or 0), key) as connection:
            while tasks := msgspec.json.decode(connection.post("/v1/annotation/claim", claim))[
                "tasks"
            ]:
                ids = [task["task_id"] for task in tasks]
                labels = [{"task_id": id_, "label": answer(id_, OPTIONS, generator)} for id_ in ids]
                connection.post("/v1/annotation/labels", msgspec.json.encode({"labels": labels}))


def settle_down(databases: Databases) -> None:
    """Do now what autovacuum and the checkpointer would do within minutes, in a measurement."""
    with databases.connect() as connection:
        connection.execute("vacuum (analyze)")
        connection.execute("checkpoint")


def make_new_job(customer_id: str, threshold: int, *, stop_early: bool) -> NewJob:
    """Return what a customer asks for."""
    return NewJob(
        customer_id=customer_id,
        manifest_url="s3://bench/manifest.jsonl",
        question="What is it?",
        options=OPTIONS,
        consensus_threshold=threshold,
        task_type=TaskType.IMAGE_CLASSIFICATION,
        callback_url=None,
        metadata=None,
        priority=5,
        stop_early=stop_early,
        failure_threshold_percent=0.0,
        credentials=None,
        delivery=None,
    )


def _gold(job: Job, chunk_no: int, frame: pl.DataFrame, every: int) -> dict[int, int]:
    """Return the right options of some tasks of a chunk, 1-based, by their byte offsets."""
    places = frame["byte_offset"][::every]
    ids = (job.task_id(task_no(chunk_no, n)) for n in range(0, len(frame), every))
    return {
        place: OPTIONS.index(true_option(id_, OPTIONS)) + 1
        for place, id_ in zip(places, ids, strict=True)
    }


def make_frame(first: int, tasks: int) -> pl.DataFrame:
    """Return tasks like the good lines of the manifests that ingestion is measured with."""
    numbers = range(first, first + tasks)
    columns = {
        "byte_offset": [n * _LINE_BYTES for n in numbers],
        "line": range(1, tasks + 1),
        "data_url": [f"https://images.example.com/batch-7/{n:08d}.jpg" for n in numbers],
        "metadata": [
            f'{{"sku": "A-{n:08d}", "shelf": {n % 40}, "size": {{"w": 640, "h": {n % 480}}}}}'
            for n in numbers
        ],
        "text": [None] * tasks,
    }
    return pl.DataFrame(columns, schema=TASK_COLUMNS)
