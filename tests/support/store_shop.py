"""A store with a customer in it, and the shortest way to every state of a job."""

import secrets
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import psycopg
from psycopg.rows import dict_row

from blocks.domain.model import BadLine, GoodLine, LabelOutcome, LineCode, Pin, TaskType
from blocks.domain.object_urls import StoreType
from blocks.lines.validated_lines import Batch, task_frame
from blocks.secrets.vault import Vault
from blocks.store import (
    annotation,
    chunks,
    customers,
    exclusions,
    jobs,
    label_changes,
    labelling,
    runs,
    task_numbers,
)
from blocks.store.annotation import ClaimedTask
from blocks.store.database import Database, Rollback, Transaction
from blocks.store.jobs import DeliveryTarget, Idempotency, Job, NewJob
from blocks.store.label_changes import Entry
from blocks.store.labelling import Label
from blocks.store.runs import Launch
from tests.support.servers import DatabaseServer
from tests.support.side import WAIT_S
from tests.support.task_rows import list_tasks

OPTIONS = ["cat", "dog", "fox"]


WEIGHTED_RULE: dict[str, Any] = {
    "consensus_threshold": 1,
    "labels_max": 6,
    "target_confidence": 9500,
}
"""Fields of a job that weighs labels."""


DELIVERY = DeliveryTarget(StoreType.S3, "results", "out")


LINE_BYTES = 100


class Chunk(list[Batch]):
    """What a chunk comes to, as one batch."""

    def __init__(self, lines: int, tasks: Sequence[GoodLine], bad: Sequence[BadLine]) -> None:
        gold = {line.byte_offset: line.gold for line in tasks if line.gold}
        super().__init__([Batch(lines, task_frame(tasks), bad, gold=gold)])
        self.lines, self.tasks, self.bad = lines, tasks, bad


def make_chunk(
    tasks: int,
    *,
    bad: int = 0,
    start: int = 0,
    metadata: str | None = None,
    gold: Mapping[int, int] = types.MappingProxyType({}),
) -> Chunk:
    """A chunk of `tasks` good lines and then `bad` bad ones, each of 100 bytes.

    `gold` has the right options, 1-based, of some of them by their places.
    """
    good = [
        GoodLine(
            start + n * LINE_BYTES,
            n + 1,
            f"https://img.example.com/{start + n}.jpg",
            metadata,
            gold=gold.get(n),
        )
        for n in range(tasks)
    ]
    wrong = [
        BadLine(
            start + (tasks + n) * LINE_BYTES,
            tasks + n + 1,
            LineCode.MALFORMED_JSON,
            "It is not JSON.",
            b"{oops",
        )
        for n in range(bad)
    ]
    return Chunk(tasks + bad, good, wrong)


class Shop:
    """The store of one test, with one customer."""

    def __init__(self, database: Database, url: str, vault: Vault) -> None:
        self.database = database
        self.url = url
        self.vault = vault
        with database.transaction() as tx:
            self.customer_id = customers.add_customer(tx, "Acme")
        self._annotators = 0

    def run(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """The rows of a statement, committed, on a connection of its own."""
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            cursor = connection.execute(cast(Any, statement), values)
            return cursor.fetchall() if cursor.description else []

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks of the store."""
        return list_tasks(self.run)

    def value(self, statement: str, *values: object) -> Any:
        """The one value that a statement comes to."""
        (row,) = self.run(statement, *values)
        (found,) = row.values()
        return found

    def find_task(self, task_id: str) -> task_numbers.Number:
        """The job's id and the number of a task."""
        found: dict[str, task_numbers.Number] = self.do(task_numbers.find, [task_id])
        return found[task_id]

    def do(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a function of the store in a transaction of its own."""
        with self.database.transaction() as tx:
            return function(tx, *arguments, **options)

    def new_job(self, **changes: Any) -> NewJob:
        default = NewJob(
            customer_id=self.customer_id,
            manifest_url="s3://manifests/one.jsonl",
            question="What is it?",
            options=OPTIONS,
            consensus_threshold=3,
            task_type=TaskType.IMAGE_CLASSIFICATION,
            callback_url=None,
            metadata=None,
            priority=5,
            stop_early=False,
            failure_threshold_percent=100.0,
            credentials=None,
            delivery=None,
        )
        return msgspec.structs.replace(default, **changes)

    def submit(self, idempotency: Idempotency | None = None, **changes: Any) -> Job:
        """A job as it was accepted."""
        with self.database.transaction() as tx:
            job_id, _ = jobs.submit(tx, self.new_job(**changes), self.vault, idempotency)
        return self.job(job_id)

    def job(self, job: Job | str) -> Job:
        """The job as it is now."""
        job_id = job if isinstance(job, str) else job.job_id
        with self.database.transaction() as tx:
            found = jobs.get(tx, job_id)
        assert found is not None
        return found

    def processing(self, *made: Chunk, ingested: bool = True, **changes: Any) -> Job:
        """A job in `processing` with these chunks."""
        job = self.submit(**changes)
        with self.database.transaction() as tx:
            jobs.begin(tx, job.job_no)
            jobs.pin(tx, job.job_no, Pin(1_000_000, '"etag"'), 500_000)
            if any(batch.gold for chunk in made for batch in chunk):
                jobs.mark_gold(tx, job.job_no)
            for chunk_no, chunk in enumerate(made):
                assert chunks.commit(tx, job.job_no, chunk_no, chunk, None)
        if ingested:
            self.do(jobs.finish_ingestion, job.job_no)
        return self.job(job)

    def annotator(self) -> int:
        """The number of a new annotator."""
        self._annotators += 1
        name = f"annotator {self._annotators} {secrets.token_hex(4)}"
        self.do(customers.add_annotator_key, name)
        return cast(int, self.value("select annotator_no from annotators where name = %s", name))

    def annotators(self, count: int) -> list[int]:
        return [self.annotator() for _ in range(count)]

    def claim(
        self,
        annotator_no: int,
        limit: int = 100,
        *,
        lease_s: int = 600,
        task_types: Sequence[str] | None = None,
        job_id: str | None = None,
    ) -> list[ClaimedTask]:
        with self.database.transaction() as tx:
            return annotation.claim(
                tx,
                annotator_no,
                limit=limit,
                lease_s=lease_s,
                task_types=task_types,
                job_id=job_id,
            )

    def label(self, annotator_no: int, *labels: tuple[str, str]) -> list[LabelOutcome]:
        with self.database.transaction() as tx:
            return labelling.submit(tx, annotator_no, [Label(*label) for label in labels])

    def enter(self, annotator_no: int, *entries: Entry) -> list[LabelOutcome]:
        """Hand in labels, skips and changes of labels as one batch."""
        with self.database.transaction() as tx:
            return label_changes.submit(tx, annotator_no, entries)

    def release(self, annotator_no: int, *task_ids: str) -> set[str]:
        with self.database.transaction() as tx:
            return annotation.release(tx, annotator_no, task_ids)

    def answer(self, annotator_no: int, option: str, limit: int = 100) -> list[LabelOutcome]:
        """Claim what there is and say `option` of all of it."""
        claimed = self.claim(annotator_no, limit)
        return self.label(annotator_no, *((task.task_id, option) for task in claimed))

    def expire_leases(self) -> None:
        self.run("update leases set expires_at = now() - interval '1 second'")

    def set_aside(self) -> None:
        """Set all labels of excluded annotators aside."""
        while exclusions.go_on(self.database):
            pass

    def outbox(self, job: Job) -> list[str]:
        """What is to be said to Prefect of the job; its events are left out."""
        query = "select kind from outbox where job_no = %s and event is null order by outbox_no"
        return [row["kind"] for row in self.run(query, job.job_no)]

    def begin_delivery(self, job: Job, part_bytes: int = 8 * 2**20) -> None:
        self.do(jobs.begin_delivery, job.job_no, part_bytes)

    def runs(self, job: Job) -> list[str]:
        """What Prefect has to do for the job."""
        rows = self.run("select kind from runs where job_no = %s order by run_no", job.job_no)
        return [row["kind"] for row in rows]

    def wait_for_waiters(self, count: int) -> None:
        """Go on when that many sessions wait for locks of others."""
        deadline = time.monotonic() + WAIT_S
        query = (
            "select count(*) from pg_stat_activity "
            "where datname = current_database() and wait_event_type = 'Lock'"
        )
        while self.value(query) < count:
            assert time.monotonic() < deadline, "nobody waits"
            time.sleep(0.005)

    @contextmanager
    def held(self) -> Iterator[Transaction]:
        """A transaction to hold locks with."""
        with self.database.transaction() as tx:
            yield tx

    @contextmanager
    def given_up(self) -> Iterator[Transaction]:
        """A transaction that never commits, as when its process is killed."""
        with self.database.transaction() as tx:
            yield tx
            raise Rollback


class LastingShop(Shop):
    """A shop that looks into the store over one connection, for those who look often."""

    def __init__(self, database: Database, url: str, vault: Vault) -> None:
        super().__init__(database, url, vault)
        self._connection = psycopg.connect(url, row_factory=dict_row, autocommit=True)

    def run(self, statement: str, *values: object) -> list[dict[str, Any]]:
        cursor = self._connection.execute(cast(Any, statement), values)
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self._connection.close()


def take(shop: Shop, *, runs_max: int = 100, per_customer_max: int = 100) -> Launch | None:
    found: Launch | None = shop.do(runs.take, runs_max=runs_max, per_customer_max=per_customer_max)
    return found


@contextmanager
def open_shop(server: DatabaseServer) -> Iterator[Shop]:
    """A shop on a database of its own, for the tests of a file."""
    url = server.clone()
    with Database(url, connections_max=4) as database:
        yield Shop(database, url, Vault([bytes(32)]))
    server.drop(url)
