"""Backups made under load and restored elsewhere: what was committed is there, and all work goes on."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from blocks.domain.ids import task_id
from blocks.secrets.vault import Vault
from blocks.store import chunks, jobs, results
from blocks.store.database import Database
from blocks.store.jobs import Job
from blocks.store.migrations import migrate
from deployments.embedded.guard import Guard
from deployments.embedded.ports import Ports
from deployments.embedded.postgres import Postgres
from deployments.embedded.postgres_programs import unprivileged_user
from deployments.embedded.processes import ChildProcess
from tests.support.backups import Operator
from tests.support.books import check_books
from tests.support.side import Side, wait_until
from tests.support.store_shop import LINE_BYTES, OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration

CHUNK_LINES = 200
SECRET = b'{"secret_access_key":"canary-backup"}'
Label = tuple[str, int]
"""The id of a task, and the number of its annotator."""


class Load:
    """A job being labelled by three people, and another whose manifest is being read."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.labelled = shop.processing(make_chunk(CHUNK_LINES))
        self.read = shop.processing(ingested=False, credentials=SECRET)
        self.chunks_committed = 0
        self.acknowledged: list[Label] = []
        self._ending = threading.Event()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Work until the block ends, which begins when everybody has done something."""
        working = [Side(partial(self._annotate, n)) for n in self.shop.annotators(3)]
        working.append(Side(self._ingest))
        try:
            wait_until(lambda: self.chunks_committed > 1 and len(self.acknowledged) > 20)
            yield
        finally:
            self._ending.set()
            for each in working:
                each.join()

    def _annotate(self, annotator_no: int) -> None:
        while not self._ending.is_set():
            held = self.shop.claim(annotator_no, 4)
            for task in held[:3]:  # one of them stays leased
                self.shop.label(annotator_no, (task.task_id, OPTIONS[0]))
                self.acknowledged.append((task.task_id, annotator_no))

    def _ingest(self) -> None:
        while not self._ending.is_set():
            chunk = make_chunk(50, bad=1, start=self.chunks_committed * 51 * LINE_BYTES)
            self.shop.do(chunks.commit, self.read.job_no, self.chunks_committed, chunk, None)
            self.chunks_committed += 1


def labels_of(shop: Shop) -> set[Label]:
    query = "select j.job_id, l.task_no, l.annotator_no, j.task_key from labels l join jobs j using (job_no)"
    return {
        (task_id(row["job_id"], row["task_key"], row["task_no"]), row["annotator_no"])
        for row in shop.run(query)
    }


def check_goes_on(shop: Shop, load: Load) -> None:
    """The books are in order, leases are good, and both jobs can be brought to their ends."""
    for job in (load.labelled, load.read):
        check_books(shop, job)
    assert shop.job(load.read).credentials is not None
    held = shop.run("select annotator_no, task_nos, job_no from leases")
    assert held
    for row in held:
        job = load.labelled if row["job_no"] == load.labelled.job_no else load.read
        tasks = [(job.task_id(number), OPTIONS[0]) for number in row["task_nos"]]
        shop.label(row["annotator_no"], *tasks)
    shop.do(jobs.finish_ingestion, load.read.job_no)
    for annotator in shop.annotators(3):
        while shop.answer(annotator, OPTIONS[0], 500):
            pass
    for job in (load.labelled, load.read):
        check_books(shop, job)
        check_results(shop, job)


def check_results(shop: Shop, job: Job) -> None:
    """Each line has ended in exactly one way."""
    found = shop.job(job)
    assert found.status == "completed"
    with shop.database.long_read() as tx:
        lines = b"".join(results.export(tx, job.job_no)).splitlines()
    tasks = [json.loads(line)["task_id"] for line in lines]
    assert len(tasks) == len(set(tasks)) == found.tasks_done
    assert found.tasks_done + found.tasks_failed == found.total_tasks


def open_restored(url: str, vault: Vault, stack: ExitStack) -> Shop:
    assert migrate(url) == []
    return Shop(stack.enter_context(Database(url, connections_max=4)), url, vault)


def test_a_dump_made_under_load_restores_to_books_in_order(shop: Shop, tmp_path: Path) -> None:
    url = f"{shop.url}_restored"
    operator = Operator(shop.url, tmp_path, NEW_DATABASE_URL=url)
    load = Load(shop)
    with load.going_on():
        sure = set(load.acknowledged)
        operator.type("pg_dump")
    operator.type("createdb")
    with ExitStack() as stack:
        restored = open_restored(url, shop.vault, stack)
        assert sure <= labels_of(restored) <= set(load.acknowledged)
        check_goes_on(restored, load)


@pytest.fixture
def folders(server_dir: Path) -> tuple[Path, Path]:
    """Folders of a backup and of a new server, which PostgreSQL's own user can pass through."""
    found = (server_dir / "backup", server_dir / "new")
    for folder in (*found, found[0] / "wal", found[1] / "postgres"):
        folder.mkdir()
        folder.chmod(0o711)
    return found


def test_a_server_that_is_gone_is_restored_to_its_last_commit_that_was_received(
    shop: Shop, server_dir: Path, folders: tuple[Path, Path], ports: Ports, guard: Guard
) -> None:
    backup, new = folders
    data = new / "postgres" / "data"
    operator = Operator(shop.url, backup, NEW_DATA=str(data))
    load = Load(shop)
    with load.going_on(), operator.receiving_wal() as receiver:
        operator.type("pg_basebackup")
        sure = set(load.acknowledged)
        operator.wait_received()
        receiver.kill()  # as if the link were cut, and the server then gone
    # It may be killed before the file that it has begun is as long as the others.
    (begun,) = (backup / "wal").glob("*.partial")
    begun.write_bytes(begun.read_bytes().rstrip(b"\0"))
    operator.type("cp -a")
    shutil.copy(server_dir / "postgres.password", new)
    if user := unprivileged_user():
        for path in (data, *data.rglob("*"), *backup.rglob("*")):
            os.chown(path, user.uid, user.gid)
    server = Postgres(new, ports.port("new postgres"), durable=False)
    child = ChildProcess(server.program(), new, guard)
    child.start()
    with ExitStack() as stack:
        stack.callback(child.stop)
        restored = open_restored(server.url(shop.url.rpartition("/")[2]), shop.vault, stack)
        assert sure <= labels_of(restored) <= set(load.acknowledged)
        check_goes_on(restored, load)
