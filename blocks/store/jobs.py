"""Jobs as rows: their life from `accepted` to an end."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from blocks.domain.consensus import ALL
from blocks.domain.errors import CredentialsWiped, IdempotencyConflict
from blocks.domain.ids import new_id, new_task_key, task_id
from blocks.domain.limits import (
    GOLD_SHARE_DEFAULT,
    MIN_GOLD_SEEN_DEFAULT,
    REVIEW_DEADLINE_DEFAULT,
    SKIPS_MAX_DEFAULT,
)
from blocks.domain.model import (
    Compression,
    DeliveryStatus,
    JobStatus,
    OptionDetail,
    Pin,
    ResultFormat,
    TaskType,
)
from blocks.domain.object_urls import ObjectUrl, StoreType
from blocks.secrets.vault import Vault
from blocks.store import instructions, job_credentials
from blocks.store.database import Rollback, Transaction, allow_time
from blocks.store.queries import load

_SQL = load("jobs")

_CANCEL_S_MAX = 60  # there may be millions of vacancies to delete


class DeliveryTarget(msgspec.Struct, frozen=True):
    """Where results go, and how they are written; `prefix` has no slashes at its ends."""

    type: StoreType
    bucket: str
    prefix: str
    compression: Compression = Compression.NONE
    format: ResultFormat = ResultFormat.JSONL
    kms_key_id: str | None = None
    acl: str | None = None

    @property
    def url(self) -> str:
        """The folder as `s3://bucket/prefix` or `gs://bucket/prefix`."""
        return str(ObjectUrl(self.type, self.bucket, self.prefix))

    @property
    def place(self) -> tuple[str | None, ...]:
        """The place that credentials are given for: where objects are written, and who may read them."""
        return (self.type, self.bucket, self.prefix, self.kms_key_id, self.acl)


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job to be recorded; `credentials` is the plain JSON, sealed before it is stored.

    Where the credentials are the operator's, `credentials_block` names their block of Prefect; besides
    the block's own place, the job may write to `block_delivers_to`, such as `s3://bucket/prefix`. The
    version of the manifest is pinned when it is first read, unless it is given. Annotators see the
    members of a line's metadata that `shown_metadata` names; None shows all. They read `instructions`,
    which is Markdown. With `sign_urls` they get signed URLs, made with `credentials`, which are kept
    until the job has ended. Where labels are weighed, `target_confidence` is set, and
    `consensus_threshold` is the least number of labels. Shares and confidence are ten-thousandths,
    `review_deadline` hours.
    """

    customer_id: str
    manifest_url: str
    question: str
    options: list[str]
    consensus_threshold: int
    task_type: TaskType
    callback_url: str | None
    metadata: str | None
    priority: int
    stop_early: bool
    failure_threshold_percent: float
    credentials: bytes | None
    delivery: DeliveryTarget | None
    credentials_block: str | None = None
    manifest_bytes: int | None = None
    manifest_version: str | None = None
    block_delivers_to: str | None = None
    shown_metadata: list[str] | None = None
    skips_max: int = SKIPS_MAX_DEFAULT
    instructions: str | None = None
    option_details: list[OptionDetail] | None = None
    target_confidence: int | None = None
    labels_max: int | None = None
    gold_share: int = round(GOLD_SHARE_DEFAULT * ALL)
    min_accuracy: int | None = None
    min_gold_seen: int = MIN_GOLD_SEEN_DEFAULT
    include_labels: bool = False
    review_no_consensus: bool = False
    review_confidence_below: int | None = None
    review_share: int | None = None
    review_flagged: bool = False
    review_deadline: float = REVIEW_DEADLINE_DEFAULT
    sign_urls: bool = False
    traceparent: str | None = None
    """The span that made it, whose trace its runs continue; None where nothing is traced."""


class Job(NewJob, frozen=True, kw_only=True):
    """A job's row and the sums over its chunks. Its `credentials` are still sealed.

    Its `instructions` are not read with it: `instructions.read` returns them by `instructions_digest`.
    """

    job_no: int
    job_id: str
    task_key: int
    status: JobStatus
    delivery_status: DeliveryStatus | None
    delivery_error_code: str | None
    delivery_error_message: str | None
    delivery_objects: int | None
    delivery_part_bytes: int | None
    """The size of the parts of its delivery, counted as lines; None until it begins."""
    delivered_at: datetime | None
    chunk_bytes: int | None
    error_code: str | None
    error_message: str | None
    created_at: datetime
    started_at: datetime | None
    ingested_at: datetime | None
    settled_at: datetime | None
    completed_at: datetime | None
    total_tasks: int
    tasks_done: int
    tasks_failed: int
    lines_read: int
    has_review: bool = False
    credentials_wiped_at: datetime | None = None
    has_gold: bool = False
    instructions_digest: bytes | None = None
    paused_at: datetime | None = None
    customer_paused_at: datetime | None = None

    @property
    def has_work_left(self) -> bool:
        """True if it has not ended, or is to be delivered."""
        delivery = self.delivery_status or DeliveryStatus.FAILED
        return not (self.status.has_ended and delivery.has_ended)

    @property
    def paused_since(self) -> datetime | None:
        """When it was paused; None if it is not, or has no work left."""
        pauses = (self.paused_at, self.customer_paused_at) if self.has_work_left else ()
        return min(filter(None, pauses), default=None)

    @property
    def pin(self) -> Pin | None:
        """The pinned version of the manifest; None until the manifest is first read."""
        if self.manifest_bytes is None or self.manifest_version is None:
            return None
        return Pin(self.manifest_bytes, self.manifest_version)

    def task_id(self, task_no: int) -> str:
        """Return the id of one of its tasks."""
        return task_id(self.job_id, self.task_key, task_no)


class Idempotency(msgspec.Struct, frozen=True):
    """The customer's key for a request, and the SHA-256 of the request, of which a digest is stored."""

    key: str
    body_hash: bytes


def submit(
    tx: Transaction, new: NewJob, vault: Vault, idempotency: Idempotency | None = None
) -> tuple[str, bool]:
    """Record a job, whose flow is then started; return its id, and True if it was recorded before.

    Raises:
        IdempotencyConflict: the key was used for another request within the last day.
    """
    job_id = new_id("job")
    values: dict[str, Any] = {"customer_id": new.customer_id}
    if idempotency:
        values |= {"key": idempotency.key, "body_hash": vault.digest(idempotency.body_hash)}
    with tx.transaction():
        digest = instructions.record(tx, new.instructions)
        job = _values(new, job_id, vault) | {"instructions_digest": digest}
        row = tx.execute(_SQL["insert_job"], job).fetchone()
        assert row is not None  # an insert returns its row
        if idempotency is None:
            return job_id, False
        # This waits for another request under way with the same key.
        bound = tx.execute(_SQL["claim_idempotency_key"], values | row).fetchone()
        if bound and bound["exists"]:
            return job_id, False
        raise Rollback
    earlier = find_earlier(tx, new.customer_id, vault, idempotency)
    assert earlier is not None  # a job of the last day has the key
    return earlier, True


def key_conflict() -> IdempotencyConflict:
    """Return the error for a key that was used for another job."""
    return IdempotencyConflict(
        "This Idempotency-Key was used with another request; use a new key for a new job."
    )


def mark_gold(tx: Transaction, job_no: int) -> None:
    """Record that some of the job's tasks are gold."""
    tx.execute(_SQL["mark_gold"], {"job_no": job_no})


def find_earlier(
    tx: Transaction, customer_id: str, vault: Vault, idempotency: Idempotency
) -> str | None:
    """Return the id of the job that the same request made within the last day, or None.

    Raises:
        IdempotencyConflict: the key was used for another request within that time.
    """
    values = {"customer_id": customer_id, "key": idempotency.key}
    found = tx.execute(_SQL["find_idempotency_key"], values).fetchone()
    if found is None:
        return None
    if not vault.is_digest_of(found["body_hash"], idempotency.body_hash):
        raise key_conflict()
    job_id: str = found["job_id"]
    return job_id


def _values(new: NewJob, job_id: str, vault: Vault) -> dict[str, Any]:
    values = msgspec.structs.asdict(new) | {"job_id": job_id} | _columns(new.delivery)
    values["task_key"] = new_task_key()
    values["option_details"] = encode_details(new.option_details)
    values["credentials"] = job_credentials.seal(new.credentials, job_id, new.customer_id, vault)
    return values


def encode_details(details: Sequence[OptionDetail] | None) -> str | None:
    """Return details of options as they are stored; None for none."""
    return None if details is None else msgspec.json.encode(details).decode()


def _columns(delivery: DeliveryTarget | None) -> dict[str, Any]:
    fields = DeliveryTarget.__struct_fields__
    return {f"delivery_{field}": getattr(delivery, field, None) for field in fields}


def get(tx: Transaction, job_id: str, *, customer_id: str | None = None) -> Job | None:
    """Return the job; None if there is none, or none that `customer_id` may see."""
    values = {"job_id": job_id, "customer_id": customer_id}
    row = tx.execute(_SQL["get_job"], values).fetchone()
    return job_of(row) if row else None


def job_of(row: dict[str, Any]) -> Job:
    """Return a row of the statement `job` as a job."""
    target = {f: row[f"delivery_{f}"] for f in DeliveryTarget.__struct_fields__}
    row["delivery"] = msgspec.convert(target, DeliveryTarget) if row["delivery_type"] else None
    row["instructions"] = None
    row["option_details"] = msgspec.convert(row["option_details"], list[OptionDetail] | None)
    row["status"] = JobStatus(row["status"])
    row["task_type"] = TaskType(row["task_type"])
    row["delivery_status"] = row["delivery_status"] and DeliveryStatus(row["delivery_status"])
    return Job(**{field: row[field] for field in Job.__struct_fields__})


def begin(tx: Transaction, job_no: int) -> None:
    """Move a job from accepted to processing."""
    tx.execute(_SQL["begin_job"], {"job_no": job_no})


def pin(tx: Transaction, job_no: int, pinned: Pin, chunk_bytes: int) -> None:
    """Record the manifest's version and the size of its chunks, unless they are recorded already."""
    values = {"size": pinned.size, "version": pinned.version, "chunk_bytes": chunk_bytes}
    tx.execute(_SQL["pin_manifest"], values | {"job_no": job_no})


def set_text_bytes(tx: Transaction, job_no: int, text_bytes: int) -> None:
    """Record the size of a compressed manifest's text, now that all of it was read."""
    tx.execute(_SQL["set_text_bytes"], {"job_no": job_no, "text_bytes": text_bytes})


def fail(tx: Transaction, job_no: int, code: str, message: str) -> None:
    """Fail an accepted or processing job; one that has ended, or was read to its end, stays as it is."""
    values = {"job_no": job_no, "code": code, "message": message}
    tx.execute(_SQL["lock_job"], values)  # a chunk that is being committed comes first
    tx.execute(_SQL["fail_job"], values)
    _hand_out_no_more(tx, [job_no])


def cancel(tx: Transaction, job_no: int) -> bool:
    """Cancel an accepted or processing job; return False if it has ended, and stays as it is."""
    tx.execute(_SQL["lock_job"], {"job_no": job_no})  # a chunk that is being committed comes first
    allow_time(tx, _CANCEL_S_MAX)
    cancelled = tx.execute(_SQL["cancel_job"], {"job_no": job_no}).fetchone() is not None
    _hand_out_no_more(tx, [job_no])
    return cancelled


def finish_ingestion(tx: Transaction, job_no: int) -> None:
    """Record that every line is read; settle the job if every task has ended too."""
    tx.execute(_SQL["lock_job"], {"job_no": job_no})
    tx.execute(_SQL["mark_ingested"], {"job_no": job_no})
    _settle_locked(tx, [job_no])


def settle(tx: Transaction, job_nos: Iterable[int]) -> None:
    """Complete each job, or have it delivered, if all its tasks have settled or failed."""
    ordered = sorted(job_nos)
    for job_no in ordered:
        tx.execute(_SQL["lock_job"], {"job_no": job_no})
    _settle_locked(tx, ordered)


def _settle_locked(tx: Transaction, job_nos: Sequence[int]) -> None:
    for job_no in job_nos:
        tx.execute(_SQL["settle_job"], {"job_no": job_no})
    _hand_out_no_more(tx, job_nos)


def _hand_out_no_more(tx: Transaction, job_nos: Sequence[int]) -> None:
    """Delete the open places and cursors of those jobs that have ended or settled.

    The open places of all jobs go before the cursors of any: a claim that holds places of one job may
    wait for the cursors of another.
    """
    for query in ("end_vacancies", "end_lanes"):
        for job_no in job_nos:
            tx.execute(_SQL[query], {"job_no": job_no})


def settle_forgotten(tx: Transaction, *, limit: int) -> int:
    """Settle jobs whose tasks have all ended without the job being settled; return how many."""
    rows = tx.execute(_SQL["list_unsettled"], {"limit": limit}).fetchall()
    settle(tx, [row["job_no"] for row in rows])
    return len(rows)


def is_any_forgotten(tx: Transaction) -> bool:
    """Return whether there is a job for `settle_forgotten`."""
    return tx.execute(_SQL["list_unsettled"], {"limit": 1}).fetchone() is not None


def purge_idempotency_keys(tx: Transaction, *, limit: int) -> int:
    """Delete up to `limit` keys that have run out; return how many."""
    return tx.execute(_SQL["purge_idempotency_keys"], {"limit": limit}).rowcount


def begin_delivery(tx: Transaction, job_no: int, part_bytes: int) -> None:
    """Move a delivery from pending to delivering, with this size of parts unless it has one."""
    tx.execute(_SQL["begin_delivery"], {"job_no": job_no, "part_bytes": part_bytes})


def finish_delivery(tx: Transaction, job_no: int, objects: int) -> bool:
    """Record that the delivery stands: complete the job, and wipe its credentials.

    Return False if another run was first, or the job has been cancelled.
    """
    finished = tx.execute(_SQL["finish_delivery"], {"job_no": job_no, "objects": objects})
    return finished.fetchone() is not None


def refuse_delivery(tx: Transaction, job_no: int, code: str, message: str) -> None:
    """Record that the delivery has failed: complete the job, but keep its credentials for a new try."""
    tx.execute(_SQL["refuse_delivery"], {"job_no": job_no, "code": code, "message": message})


def redeliver(
    tx: Transaction, job: Job, delivery: DeliveryTarget, credentials: bytes | None, vault: Vault
) -> bool:
    """Deliver a completed job again whose delivery failed, or that asked for none.

    Return False if it is not in that state, or its credentials are for another place: `credentials` is
    the plain JSON, sealed before it is stored; None keeps the present ones, which are for the recorded
    place alone.
    """
    sealed = job_credentials.seal(credentials, job.job_id, job.customer_id, vault)
    values = {"job_no": job.job_no, "credentials": sealed} | _columns(delivery)
    return tx.execute(_SQL["redeliver"], values).fetchone() is not None


def wipe_credentials(tx: Transaction, job_no: int) -> bool:
    """Delete the job's credentials for good; return False if it has none.

    A job whose manifest is still to be read fails with `credentials_wiped`. One that is only to be
    delivered goes on, and its delivery is refused with that code.
    """
    tx.execute(_SQL["lock_job"], {"job_no": job_no})  # a chunk that is being committed comes first
    wiped = tx.execute(_SQL["wipe_credentials"], {"job_no": job_no}).fetchone()
    if wiped is None:
        return False
    message = "Its credentials were wiped before its manifest was read."
    fail(tx, job_no, CredentialsWiped.code, message)
    return True
