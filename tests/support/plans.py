"""The plans of the store's statements."""

from collections.abc import Iterator
from typing import Any

from psycopg import sql

from blocks.store.database import Rollback, Transaction

LARGE = {
    "archived_labels",
    "label_batches",
    "pages",
    "tallies",
    "labels",
    "leases",
    "vacancies",
    "jobs",
    "runs",
    "chunks",
    "skips",
    "reviews",
}


class Explained:
    """A transaction that keeps the plan of each statement, with what it read."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.plans: list[dict[str, Any]] = []

    def execute(self, query: sql.SQL, values: Any = None, **options: Any) -> Any:
        explain = sql.SQL("explain (analyze, buffers, timing off, format json) ")
        with self._tx.transaction():
            row = self._tx.execute(explain + query, values).fetchone()
            assert row is not None  # a plan
            self.plans.append(row["QUERY PLAN"][0]["Plan"])
            raise Rollback
        return self._tx.execute(query, values, **options)

    def execute_later(self, query: sql.SQL, values: Any = None) -> None:
        self.execute(query, values)

    def commit(self) -> None:
        """Do nothing: the transaction is the test's."""

    def transaction(self) -> Any:
        """Begin a part of the transaction that can be undone by itself."""
        return self._tx.transaction()

    def nodes(self) -> Iterator[dict[str, Any]]:
        waiting = list(self.plans)
        while waiting:
            node = waiting.pop()
            waiting += node.get("Plans", [])
            yield node

    def pages(self) -> int:
        return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in self.plans)

    def check(self, pages_max: int) -> None:
        scanned = {
            node["Relation Name"]
            for node in self.nodes()
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE
        }
        assert scanned == set()
        assert self.pages() <= pages_max
