"""Handing out tasks and taking labels. The rules are in `sql/annotation.sql`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from blocks.ids import parse_task_id
from blocks.model import LabelOutcome
from blocks.store import jobs
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("annotation")


class ClaimedTask(msgspec.Struct, frozen=True):
    """A task in an annotator's hands until `lease_expires_at`; `metadata` is verbatim JSON."""

    task_id: str
    data_url: str
    metadata: str | None
    task_type: str
    question: str
    options: list[str]
    lease_expires_at: datetime


class Label(msgspec.Struct, frozen=True):
    """What an annotator says of a task: one of its job's options."""

    task_id: str
    label: str


def claim(
    tx: Transaction,
    annotator_no: int,
    *,
    limit: int,
    lease_s: int,
    task_types: Sequence[str] | None = None,
    job_id: str | None = None,
) -> list[ClaimedTask]:
    """Up to `limit` tasks, by the priority of their jobs; of one priority first those begun on."""
    values: dict[str, Any] = {
        "annotator_no": annotator_no,
        "lease_s": lease_s,
        "task_types": list(task_types) if task_types else None,
        "job_id": job_id,
    }
    tx.execute(_SQL["return_expired"])
    leased = _lease(tx, values, limit)
    keys = {
        "annotator_no": annotator_no,
        "job_nos": [row["job_no"] for row in leased],
        "byte_offsets": [row["byte_offset"] for row in leased],
    }
    rows = tx.execute(_SQL["describe_leased"], keys).fetchall() if leased else []
    return [ClaimedTask(**row) for row in rows]


def _lease(tx: Transaction, values: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    leased: list[dict[str, Any]] = []
    priority_before = None
    while True:
        # Tasks begun on come before fresh ones, but not before those of a job with higher priority.
        top = tx.execute(_SQL["highest_fresh"], values).fetchone()
        priority = top["priority"] if top else None
        wanted = values | {"priority": priority or 0, "limit": limit - len(leased)}
        if priority is None or priority != priority_before:
            leased += tx.execute(_SQL["lease_open"], wanted).fetchall()
            wanted["limit"] = limit - len(leased)
        if priority is None or not wanted["limit"]:
            return leased
        if priority_before is None:
            tx.execute(_SQL["await_fresh_chunk"], wanted)
        priority_before = priority
        fresh = tx.execute(_SQL["lease_fresh"], wanted).fetchall()
        leased += fresh
        if not fresh or len(leased) == limit:
            return leased


def submit(tx: Transaction, annotator_no: int, labels: Sequence[Label]) -> list[LabelOutcome]:
    """What became of each label, in their order. A job whose last task settles moves on."""
    outcomes: dict[int, LabelOutcome] = {}
    parsed = [(n, parse_task_id(label.task_id), label.label) for n, label in enumerate(labels)]
    known = [(n, *key, label) for n, key, label in parsed if key]
    accepted = tx.execute(_SQL["submit_labels"], _columns(known, annotator_no)).fetchall()
    for row in accepted:
        outcomes[row["n"]] = LabelOutcome.SETTLED if row["settled"] else LabelOutcome.ACCEPTED
    refused = [entry for entry in known if entry[0] not in outcomes]
    if refused:
        query = _SQL["explain_refused"]
        for row in tx.execute(query, _columns(refused, annotator_no)).fetchall():
            outcomes[row["n"]] = LabelOutcome(row["outcome"])
    for job_no in sorted({row["job_no"] for row in accepted if row["chunk_done"]}):
        jobs.settle(tx, job_no)
    return [outcomes.get(n, LabelOutcome.UNKNOWN_TASK) for n in range(len(labels))]


def _columns(entries: Sequence[tuple[int, str, int, str]], annotator_no: int) -> dict[str, Any]:
    ns, job_ids, byte_offsets, labels = zip(*entries, strict=True) if entries else ((),) * 4
    return {
        "annotator_no": annotator_no,
        "ns": list(ns),
        "job_ids": list(job_ids),
        "byte_offsets": list(byte_offsets),
        "labels": list(labels),
    }
