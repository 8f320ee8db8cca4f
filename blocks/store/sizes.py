"""What takes the disk, by groups of tables."""

import msgspec

from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("sizes")

GROUPS = {
    "jobs": "jobs idempotency_keys deleted_jobs instructions",
    "lines": "chunks pages bad_lines inline_tasks gold_tasks gold_shown",
    "labels": "labels tallies skips labels_set_aside label_changes exclusions comparisons "
    "job_annotators",
    "archived labels": "archived_labels",
    "handing out": "lanes open_chunks leases vacancies",
    "reviews": "reviews",
    "results": "delivered_objects",
    "webhooks": "webhooks webhook_defaults notifications notification_attempts",
    "streams": "streams stream_manifests forgotten_manifests",
    "Prefect's work": "runs outbox",
    "annotators": "annotators label_batches annotator_days label_times",
    "customers, keys": "customers api_keys sessions sign_in_links new_key_answers",
    "audit log": "audit_log",
    "counts": "counts write_checks passes",
}
"""The tables of each group; every table of the schema is in one."""


class GroupSize(msgspec.Struct, frozen=True):
    """A group of tables: rows as PostgreSQL estimates them, and bytes on the disk."""

    name: str
    rows: int
    table_bytes: int
    index_bytes: int

    @property
    def bytes(self) -> int:
        """Of tables and indexes together."""
        return self.table_bytes + self.index_bytes


def measure(tx: Transaction) -> list[GroupSize]:
    """Return the sizes of all groups."""
    found = []
    for name, tables in GROUPS.items():
        row = tx.execute(_SQL["measure"], {"tables": tables.split()}).fetchone()
        assert row is not None  # an aggregate
        found.append(GroupSize(name, **row))
    return found


def count_lines(tx: Transaction) -> int:
    """Count the lines of all jobs that are kept; reads a row for each chunk."""
    row = tx.execute(_SQL["count_lines"]).fetchone()
    assert row is not None  # an aggregate
    lines: int = row["lines"]
    return lines
