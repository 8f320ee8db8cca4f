"""Code works with a schema, or is refused with a sentence: when it starts, and when it is running."""

import asyncio
import logging
import signal
from collections.abc import Iterator
from importlib.metadata import version
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prefect.workers.base import BaseWorker

from blocks.settings import Settings
from blocks.store.database import Database
from blocks.store.interrupts import Interrupt
from blocks.store.migrations import OldCodeConnected, check, migrate
from blocks.store.queries import Statement
from blocks.store.schema_versions import SchemaMissing, SchemaNewer
from deployments import worker
from tests.support.api_world import Api
from tests.support.made_migrations import write_files
from tests.support.servers import KEY
from tests.support.side import wait_until

pytestmark = pytest.mark.integration

# Expand, use, contract: the column comes with 2, no code uses the old one from 3 on, it goes with 4.
FILES = {
    "0001_first.sql": "create table a (old int)",
    "0002_expand.sql": "-- oldest-code: 1\n\nalter table a add column new int",
    "0003_use.sql": "-- oldest-code: 1\n\nupdate a set new = old",
    "0004_contract.sql": "-- oldest-code: 3\n\nalter table a drop column old",
}
ONE = Statement("select 1 as one")
MISSING = (SchemaMissing, r"`refinery db migrate` makes it")
NEWER = (SchemaNewer, r"migrated the database to 0004_contract\.sql.* knows migration 3 or later")


def known_to(number: int, folder: Path) -> Path:
    """A folder with the migrations that code of this number knows."""
    place = folder / str(number)
    place.mkdir(exist_ok=True)
    return write_files(place, dict(sorted(FILES.items())[:number]))


def use(url: str, number: int) -> None:
    with Database(url, connections_max=1, schema_number=number) as database:
        with database.transaction() as tx:
            assert tx.execute(ONE).fetchall() == [{"one": 1}]
        with database.long_read() as tx:
            assert tx.execute(ONE).fetchall() == [{"one": 1}]
        next(database.listen("any", timeout_s=1, interrupt=Interrupt()))


@pytest.mark.parametrize(
    "schema, code, refused",
    [
        (0, 1, MISSING),
        (1, 1, None),
        (1, 2, MISSING),
        (2, 1, None),
        (3, 1, None),
        (3, 2, None),
        (3, 4, MISSING),
        (4, 1, NEWER),
        (4, 2, NEWER),
        (4, 3, None),
        (4, 4, None),
    ],
)
def test_code_works_with_a_schema_or_is_refused_with_a_sentence(
    schema: int,
    code: int,
    refused: tuple[type[Exception], str] | None,
    empty_url: str,
    tmp_path: Path,
) -> None:
    if schema:
        migrate(empty_url, folder=known_to(schema, tmp_path))
    own = known_to(code, tmp_path)
    if refused:
        error, sentence = refused
        with pytest.raises(error, match=sentence):
            check(empty_url, folder=own)
        with pytest.raises(error, match=sentence):
            use(empty_url, code)
    else:
        check(empty_url, folder=own)
        use(empty_url, code)
    if refused is NEWER:
        with pytest.raises(SchemaNewer, match=NEWER[1]):
            migrate(empty_url, folder=own)
    else:
        assert len(migrate(empty_url, folder=own)) == max(code - schema, 0)
        use(empty_url, code)


def test_what_older_code_still_uses_is_not_taken_away(empty_url: str, tmp_path: Path) -> None:
    migrate(empty_url, folder=known_to(3, tmp_path))
    contracted = known_to(4, tmp_path)
    old, new = (Database(empty_url, connections_max=1, schema_number=code) for code in (2, 3))
    with new, new.transaction() as connected:
        connected.execute(ONE)
        with old, old.transaction() as tx:
            pid = tx.execute(Statement("select pg_backend_pid() as pid")).fetchall()[0]["pid"]
            with pytest.raises(
                OldCodeConnected, match=rf"0004_contract\.sql .* processes {pid} from"
            ):
                migrate(empty_url, folder=contracted)
            tx.execute(Statement("select old from a"))
        assert migrate(empty_url, folder=contracted) == ["0004_contract.sql"]
        assert connected.execute(ONE).fetchall() == [{"one": 1}]
    with pytest.raises(SchemaNewer, match=NEWER[1]):
        use(empty_url, 2)


def move_on(url: str) -> None:
    """Have the database migrated by a version that leaves this one behind, as it is after a failover."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "insert into migrations (name, sha256, oldest_code, version) "
            "values ('0009_x.sql', '', 9, '9.0.0')"
        )
        connection.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )


def test_an_api_that_is_left_behind_answers_503_and_its_health_says_why(api: Api) -> None:
    assert api.client.get("/health/ready").json()["database"] == "ok"
    move_on(api.shop.url)
    found = api.client.get("/v1/jobs", headers=api.customer)
    assert (found.status_code, found.json()["code"]) == (503, "unavailable")

    def is_told() -> bool:
        ready = api.client.get("/health/ready")
        return (ready.status_code, ready.json()["database"]) == (503, "wrong_schema")

    wait_until(is_told)  # a finding is kept for a second


@pytest.fixture
def as_worker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("REFINERY_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("ASG_ENCRYPTION_KEY", KEY)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("as_worker")
def test_a_worker_does_not_start_on_a_schema_that_it_does_not_work_with(
    empty_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_on(database_url)
    with pytest.raises(SchemaNewer, match=r"Version 9\.0\.0 has migrated"):
        worker.run_worker("any", None, None)
    monkeypatch.setenv("REFINERY_DATABASE_URL", empty_url)
    with pytest.raises(SchemaMissing, match="`refinery db migrate` makes it"):
        worker.run_worker("any", None, None)


@pytest.mark.usefixtures("as_worker")
def test_a_worker_that_is_left_behind_ends_with_a_sentence(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def serve(_: object, *__: Any, **___: Any) -> None:
        move_on(database_url)
        await asyncio.sleep(60)

    monkeypatch.setattr(BaseWorker, "start", serve)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: None)
    monkeypatch.setattr(worker, "prepare_for_worker", lambda _: None)
    with pytest.raises(SchemaNewer, match=r"Version 9\.0\.0 has migrated"):
        worker.run_worker("any", None, None)
    assert f"Refinery Jobs {version('refinery-jobs')}" in caplog.text
