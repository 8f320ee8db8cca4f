"""Transactions whose client has stopped in their middle."""

import pytest

from blocks.store import database as module
from blocks.store.database import Database, DatabaseUnavailable

pytestmark = pytest.mark.integration


def test_a_client_that_has_stopped_holds_its_locks_for_a_while_only(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database(database_url, connections_max=1) as other:
        monkeypatch.setattr(module, "_IDLE_S_MAX", 0.2)
        with pytest.raises(DatabaseUnavailable):
            _stop_in_the_middle(database_url, other)


def _stop_in_the_middle(url: str, other: Database) -> None:
    with Database(url, connections_max=1) as stopped, stopped.transaction() as tx:
        tx.execute("lock table jobs")
        with other.transaction() as waiting:
            waiting.execute("lock table jobs")  # had when the server has ended the first
        tx.execute("select 1")
