"""Single tasks: add inline ones, and look any of them up."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any

import msgspec

from blocks.domain.consensus import confidence
from blocks.domain.errors import IdempotencyConflict
from blocks.domain.ids import new_id, new_task_key, task_id
from blocks.domain.limits import (
    FAILURE_THRESHOLD_PERCENT_DEFAULT,
    PRIORITY_DEFAULT,
    SKIPS_MAX_DEFAULT,
)
from blocks.domain.model import (
    GoodLine,
    JobStatus,
    OptionDetail,
    SettledBy,
    SkipReason,
    TaskReason,
    TaskStatus,
    TaskType,
    why_failed,
)
from blocks.lines.pages import make_inline_pages
from blocks.secrets.vault import Vault
from blocks.store import archive, ballots, instructions, jobs, pages, reviews, task_numbers
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("tasks")

# The first of the two numbers of an advisory lock; the second is the customer's.
_KEYS_LOCK = 732


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """The question of a task, and when it is decided."""

    task_type: TaskType
    question: str
    options: list[str]
    consensus_threshold: int
    stop_early: bool
    shown_metadata: list[str] | None = None
    skips_max: int = SKIPS_MAX_DEFAULT
    instructions: str | None = None
    option_details: list[OptionDetail] | None = None
    target_confidence: int | None = None
    labels_max: int | None = None


class NewTask(msgspec.Struct, frozen=True, kw_only=True):
    """An inline task, with a URL or a text.

    `metadata` is a JSON object as text, `body_hash` the SHA-256 of the request, `gold` the right option,
    1-based, where that is known.
    """

    rule: Rule
    data_url: str | None
    metadata: str | None
    callback_url: str | None
    idempotency_key: str | None
    body_hash: bytes
    text: str | None = None
    gold: int | None = None

    def as_line(self) -> GoodLine:
        """Return it as the line of a manifest, at no place."""
        return GoodLine(0, 0, self.data_url, self.metadata, self.text)


class CreatedTask(msgspec.Struct, frozen=True):
    """A task's id; `replayed` if an earlier request with its key has made it."""

    task_id: str
    created_at: datetime
    replayed: bool = False


class Skip(msgspec.Struct, frozen=True):
    """An annotator's refusal to label a task."""

    reason: SkipReason
    """Why they skipped the task."""
    note: str | None
    """What they wrote beside it; null if nothing."""
    created_at: datetime
    """When they did."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task and its votes; `line` is 1-based in the manifest, None for an inline task."""

    task_id: str
    job_id: str
    inline: bool
    job_status: JobStatus
    question: str
    options: list[str]
    consensus_threshold: int
    task_type: TaskType
    stop_early: bool
    skips_max: int
    data_url: str | None
    text: str | None
    metadata: str | None
    created_at: datetime
    batch_id: str | None
    callback_url: str | None
    line: int | None
    outcome: int | None
    votes: list[int] | None
    labelled_at: datetime | None
    untouched: bool
    skips: list[Skip]
    instructions_digest: bytes | None = None
    option_details: list[OptionDetail] | None = None
    target_confidence: int | None = None
    labels_max: int | None = None
    settled_by: SettledBy | None = None
    confidence: int | None = None
    """How likely its outcome is, in ten-thousandths, where labels are weighed."""
    gold: int | None = None
    """The right option, 1-based, of a gold task, which is also its outcome."""

    @property
    def status(self) -> TaskStatus:
        if self.outcome is not None and self.outcome > 0:
            return TaskStatus.SETTLED
        if self.reason:
            return TaskStatus.FAILED
        return TaskStatus.PENDING if self.untouched else TaskStatus.IN_PROGRESS

    @property
    def reason(self) -> TaskReason | None:
        """Why the task failed; None if it has not."""
        if self.outcome is not None:
            return why_failed(self.outcome) if self.outcome <= 0 else None
        if self.job_status is JobStatus.CANCELLED:
            return TaskReason.CANCELLED
        return TaskReason.JOB_FAILED if self.job_status is JobStatus.FAILED else None


def create(
    tx: Transaction,
    customer_id: str,
    tasks: Sequence[NewTask],
    vault: Vault,
    *,
    batch_id: str | None = None,
) -> list[CreatedTask]:
    """Add all tasks or none; return them in their order. A key that was used gives its first task.

    The hashes of the requests are stored as digests keyed by the `vault`, so that they confirm no guess.

    Raises:
        IdempotencyConflict: a key was used for another task.
    """
    known = _find_keys(tx, customer_id, tasks, vault)
    made: dict[int, CreatedTask] = {}
    fresh: dict[bytes, dict[int, NewTask]] = {}
    first_of: dict[str, int] = {}
    for n, task in enumerate(tasks):
        key = task.idempotency_key
        if key is not None and key in known:
            made[n] = known[key]
        elif key is None or first_of.setdefault(key, n) == n:
            fresh.setdefault(_inline_key(task.rule), {})[n] = task
    # Containers are made in the order of their keys, and appended to in the order of their jobs, so that
    # two requests cannot wait for each other.
    containers = [
        (_container(tx, customer_id, key, fresh[key]), fresh[key]) for key in sorted(fresh)
    ]
    for container, some in sorted(containers, key=lambda each: each[0]["job_no"]):
        made |= _append(tx, customer_id, container, some, batch_id=batch_id, vault=vault)
    return [
        made[n] if n in made else made[first_of[task.idempotency_key or ""]]
        for n, task in enumerate(tasks)
    ]


def get(tx: Transaction, id_: str, *, customer_id: str | None) -> Task | None:
    """Return the customer's task of that id, or anybody's with None; None if there is none."""
    number = task_numbers.find(tx, [id_]).get(id_)
    if number is None:
        return None
    job_id, task_no = number
    values = {"job_id": job_id, "task_no": task_no, "customer_id": customer_id}
    row = tx.execute(_SQL["get_task"], values).fetchone()
    if row is None:
        return None
    job_no = row.pop("job_no")
    (line,) = pages.read(tx, [(job_no, task_no)]).values()
    if row["votes"] is None and JobStatus(row["job_status"]).has_ended:
        row |= _find_archived(tx, job_no, task_no, row)
    if row["gold"] is not None:
        row |= {"outcome": row["gold"], "labelled_at": row["created_at"], "confidence": None}
    if row.pop("has_review") and (row["outcome"] or 0) > 0:
        row["settled_by"] = reviews.find_settled_by(tx, job_no, task_no)
    lines_before = row.pop("lines_before")
    found = {
        "task_id": id_,
        "data_url": line.data_url,
        "text": line.text,
        "metadata": line.metadata,
        "line": None if lines_before is None else lines_before + line.line,
        "skips": _list_skips(tx, job_no, task_no),
    }
    return msgspec.convert(row | found, Task)


def _list_skips(tx: Transaction, job_no: int, number: int) -> list[Skip]:
    rows = tx.execute(_SQL["list_skips"], {"job_no": job_no, "task_no": number}).fetchall()
    return [Skip(**row | {"reason": SkipReason.of_number(row["reason"])}) for row in rows]


def _find_archived(
    tx: Transaction, job_no: int, number: int, row: Mapping[str, Any]
) -> dict[str, Any]:
    labels = archive.read_labels_of(tx, job_no, [number])
    if labels.is_empty():
        return {}
    said, options = labels["option"].to_list(), len(row["options"])
    is_weighted = row["target_confidence"] is not None
    found = ballots.confidences_of(labels, options)["confidence"] if is_weighted else ()
    return {
        "confidence": next(iter(found), confidence([0] * options) if is_weighted else None),
        "outcome": labels["outcome"][-1],
        "votes": [said.count(option) for option in range(1, options + 1)],
        "labelled_at": labels["created_at"][-1],
    }


def _find_keys(
    tx: Transaction, customer_id: str, tasks: Sequence[NewTask], vault: Vault
) -> Mapping[str, CreatedTask]:
    hashes: dict[str, bytes] = {}
    for task in tasks:
        if task.idempotency_key is not None:
            first = hashes.setdefault(task.idempotency_key, task.body_hash)
            _check_same(task, is_same=first == task.body_hash)
    if not hashes:
        return {}
    values = {"customer_id": customer_id, "keys": list(hashes), "lock": _KEYS_LOCK}
    tx.execute(_SQL["lock_keys"], values)
    rows = {row["idempotency_key"]: row for row in tx.execute(_SQL["find_keys"], values)}
    for task in tasks:
        if row := rows.get(task.idempotency_key):
            used_for: bytes = row["body_hash"]
            _check_same(task, is_same=vault.is_digest_of(used_for, task.body_hash))
    return {key: _created(row, row, replayed=True) for key, row in rows.items()}


def _created(
    job: Mapping[str, Any], row: Mapping[str, Any], *, replayed: bool = False
) -> CreatedTask:
    id_ = task_id(job["job_id"], job["task_key"], row["task_no"])
    return CreatedTask(id_, row["created_at"], replayed)


def _check_same(task: NewTask, *, is_same: bool) -> None:
    if not is_same:
        raise key_conflict(task.idempotency_key)


def key_conflict(key: str | None) -> IdempotencyConflict:
    """Return the error for a key that was used for another task."""
    return IdempotencyConflict(
        f"The idempotency_key {key!r} was used for another task; use a new key for a new task."
    )


def _inline_key(rule: Rule) -> bytes:
    return hashlib.sha256(msgspec.json.encode(rule)).digest()


def _container(
    tx: Transaction, customer_id: str, inline_key: bytes, tasks: Mapping[int, NewTask]
) -> dict[str, Any]:
    values = {"customer_id": customer_id, "inline_key": inline_key}
    found = tx.execute(_SQL["find_container"], values).fetchone()
    if found is None:
        new = values | {
            "job_id": new_id("job"),
            "task_key": new_task_key(),
            "priority": PRIORITY_DEFAULT,
            "failure_threshold_percent": FAILURE_THRESHOLD_PERCENT_DEFAULT,
        }
        rule = next(iter(tasks.values())).rule
        new |= msgspec.structs.asdict(rule)
        new |= {
            "instructions_digest": instructions.record(tx, rule.instructions),
            "option_details": jobs.encode_details(rule.option_details),
        }
        tx.execute(_SQL["insert_container"], new)
        found = tx.execute(_SQL["find_container"], values).fetchone()
        assert found is not None  # this request or another has inserted it
    return found


def _append(
    tx: Transaction,
    customer_id: str,
    container: Mapping[str, Any],
    tasks: Mapping[int, NewTask],
    *,
    batch_id: str | None,
    vault: Vault,
) -> dict[int, CreatedTask]:
    made = list(make_inline_pages([task.as_line() for task in tasks.values()]))
    values = {
        "job_no": container["job_no"],
        "customer_id": customer_id,
        "batch_id": batch_id,
        "gold_places": [n for n, task in enumerate(tasks.values()) if task.gold],
        "gold_options": [task.gold for task in tasks.values() if task.gold],
        "gold": sum(1 for task in tasks.values() if task.gold),
        "bytes": sum(stored_bytes(task) for task in tasks.values()),
        "tasks": len(tasks),
        "page_skipped": list(accumulate((page.tasks for page in made), initial=0))[:-1],
        "page_tasks": [page.tasks for page in made],
        "page_contents": [page.content for page in made],
        "callback_urls": [task.callback_url for task in tasks.values()],
        "idempotency_keys": [task.idempotency_key for task in tasks.values()],
        "body_hashes": [
            vault.digest(task.body_hash) if task.idempotency_key else None
            for task in tasks.values()
        ],
    }
    place = tx.execute(_SQL["lengthen_chunk"], values).fetchone()
    assert place is not None  # a container has a chunk
    if values["gold"]:
        jobs.mark_gold(tx, container["job_no"])
        tx.execute(_SQL["append_gold"], values | place)
    rows = tx.execute(_SQL["append_tasks"], values | place).fetchall()
    tx.execute(_SQL["reopen_container"], values)
    return {n: _created(container, row) for n, row in zip(tasks, rows, strict=True)}


def stored_bytes(task: NewTask) -> int:
    """Return the UTF-8 bytes of the customer's texts in the task, without its container's question."""
    texts = (task.data_url, task.text, task.metadata, task.callback_url, task.idempotency_key)
    return sum(len(text.encode()) for text in texts if text)
