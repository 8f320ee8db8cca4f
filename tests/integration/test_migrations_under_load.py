"""Migrations are applied while people claim and label, and a migrator may be killed at any moment."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from blocks.domain.model import LabelOutcome
from blocks.store import annotation, labelling
from blocks.store.database import Database
from blocks.store.labelling import Label
from blocks.store.migrations import migrate
from tests.support.made_migrations import add_to_ours
from tests.support.side import Side, at_once, wait_until
from tests.support.store_shop import OPTIONS, Shop, make_chunk

pytestmark = pytest.mark.integration

COLUMNS = {
    "0002_add_colour.sql": """-- oldest-code: 1

alter table chunks add column colour text;
alter table jobs add column colour text;
"""
}
INDEX = """-- oldest-code: 1
-- transaction: no

create index concurrently if not exists labels_by_age on labels (created_at);
"""
# Ten times as long as a migrator may make anybody wait for a lock; PostgreSQL itself ends what waits longer.
LOCK_S_MAX = 1.0
HERE = "database = (select oid from pg_database where datname = current_database())"
TASKS = 4_000
BATCH = 5
ANNOTATORS = 2
# As `python -c` of a process of its own, which can be killed.
MIGRATE = """
import sys
from pathlib import Path

from blocks.store.migrations import migrate

migrate(sys.argv[1], folder=Path(sys.argv[2]))
"""


class Crowd:
    """Annotators who claim and label without a pause, until `stop`."""

    def __init__(self, shop: Shop) -> None:
        self.labels = 0
        self._stopping = threading.Event()
        self._database = Database(
            shop.url,
            connections_max=ANNOTATORS,
            lock_s_max=LOCK_S_MAX,
            statement_s_max=5 * LOCK_S_MAX,
        )
        numbers = shop.annotators(ANNOTATORS)
        self._sides = [Side(self._annotate_as(number)) for number in numbers]

    def _annotate_as(self, number: int) -> Callable[[], int]:
        def annotate() -> int:
            counted = 0
            while not self._stopping.is_set():
                with self._database.transaction() as tx:
                    tasks = annotation.claim(tx, number, limit=BATCH, lease_s=600)
                assert tasks, "more tasks are needed"
                with self._database.transaction() as tx:
                    labels = [Label(task.task_id, OPTIONS[0]) for task in tasks]
                    outcomes = labelling.submit(tx, number, labels)
                assert set(outcomes) <= {LabelOutcome.ACCEPTED, LabelOutcome.SETTLED}
                counted += len(outcomes)
                self.labels += len(outcomes)
            return counted

        return annotate

    def wait_for_more(self) -> None:
        """Go on when each of them must have claimed and labelled once more."""
        wanted = self.labels + 2 * ANNOTATORS * BATCH
        wait_until(lambda: self.labels >= wanted or any(side.wait(0) for side in self._sides))

    def stop(self) -> int:
        """How many labels were counted. Raises what an annotator met."""
        self._stopping.set()
        try:
            return sum(side.join() for side in self._sides)
        finally:
            self._database.close()


@contextmanager
def long_transaction(url: str) -> Iterator[None]:
    """A transaction like that of `pg_dump`: it reads, and nobody may change its tables meanwhile."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("select from jobs, labels limit 1")
        yield


def is_index_valid(shop: Shop) -> bool | None:
    found = shop.run(
        "select indisvalid from pg_index where indexrelid = to_regclass('labels_by_age')"
    )
    return found[0]["indisvalid"] if found else None


def columns_added(shop: Shop) -> int:
    query = "select count(*) from information_schema.columns where column_name = 'colour'"
    found: int = shop.value(query)
    return found


def test_nobody_fails_or_waits_while_a_column_and_an_index_are_added(
    shop: Shop, tmp_path: Path
) -> None:
    shop.processing(make_chunk(TASKS))
    folder = add_to_ours(tmp_path, COLUMNS, {"0003_add_index.sql": INDEX})
    told: list[str] = []
    crowd = Crowd(shop)
    with long_transaction(shop.url):
        migrator = Side(lambda: migrate(shop.url, folder=folder, tell=told.append))
        # Nobody queues behind the migrator, which waits for the long transaction.
        wait_until(lambda: len([each for each in told if "trying again" in each]) >= 2)
        crowd.wait_for_more()
        assert not migrator.wait(0)
    assert migrator.join() == ["0002_add_colour.sql", "0003_add_index.sql"]
    crowd.wait_for_more()
    assert crowd.stop() == shop.value("select count(*) from labels")
    assert (columns_added(shop), is_index_valid(shop)) == (2, True)


def is_waiting(shop: Shop) -> bool:
    return bool(shop.value(f"select count(*) from pg_locks where not granted and {HERE}"))


def has_ended(shop: Shop) -> bool:
    """Whether PostgreSQL has noticed that the migrator is dead; it looks once a second."""
    query = "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'"
    return not shop.value(f"{query} and {HERE}")


@pytest.mark.parametrize(
    "file, is_in_the_middle",
    [
        (COLUMNS, is_waiting),
        ({"0002_add_index.sql": INDEX}, lambda shop: is_index_valid(shop) is False),
    ],
    ids=["in a transaction", "an index"],
)
def test_a_migrator_that_is_killed_is_followed_by_one_that_goes_on(
    file: dict[str, str],
    is_in_the_middle: Callable[[Shop], bool],
    shop: Shop,
    tmp_path: Path,
) -> None:
    shop.processing(make_chunk(10))
    folder = add_to_ours(tmp_path, file)
    with long_transaction(shop.url):
        command = [sys.executable, "-c", MIGRATE, shop.url, str(folder)]
        with subprocess.Popen(command) as killed:
            wait_until(lambda: is_in_the_middle(shop))
            killed.kill()
            wait_until(lambda: has_ended(shop))
        assert columns_added(shop) == 0
    told: list[str] = []
    assert migrate(shop.url, folder=folder, tell=told.append) == list(file)
    if file is COLUMNS:
        assert columns_added(shop) == 2
    else:
        assert is_index_valid(shop) is True
        assert any("dropping the index labels_by_age" in each for each in told)
    assert migrate(shop.url, folder=folder) == []


def test_of_three_that_migrate_at_once_one_does_the_work(shop: Shop, tmp_path: Path) -> None:
    """And those who wait are not waited for by the index, which waits for all that is in the database."""
    folder = add_to_ours(tmp_path, {"0002_add_index.sql": INDEX})
    found = at_once(*[lambda: migrate(shop.url, folder=folder)] * 3)
    assert sorted(found, key=len) == [[], [], ["0002_add_index.sql"]]
