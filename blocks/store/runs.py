"""Work pending in Prefect: one row per job and kind until the work is done, in however many runs."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from blocks.domain.backoff import backoff_steps
from blocks.store import outbox
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("runs")

OURS = "refinery-"
"""The beginning of the idempotency keys of runs that a launcher has asked for."""

LAUNCHED = "launched"
"""The channel that workers listen on for runs that Prefect has been asked for."""

# A number that nothing else locks.
_TURN_LOCK = 7_310_563_213
# A run costs two seconds of a core, most of them in Prefect. Where this many jobs of one customer wait,
# one run does all of them.
QUEUE_MIN = 4
# Work that has waited for longer than this waits for a place, and not for a launcher to look.
_PATIENCE_S = 2.0
_AHEAD_MAX = 20

RELAUNCH_DELAY_S = 10.0
RELAUNCH_DELAY_S_MAX = 900.0
"""Bounds of the wait after a run that ended too early, in seconds; it doubles each time."""


class Launch(msgspec.Struct, frozen=True):
    """A run to ask Prefect for: the `launches`th of its work; `failures` counts refusals in a row.

    With `is_queue`, more work of the customer waits that one run may do after this.
    """

    run_no: int
    kind: str
    launches: int
    failures: int
    job_id: str
    customer_id: str
    is_queue: bool
    traceparent: str | None = None

    @property
    def idempotency_key(self) -> str:
        """The key of this launch: the same however often it is asked for, and another for the next.

        Prefect keeps keys for each flow, as long as it keeps the runs.
        """
        return f"{OURS}{self.kind}-{self.job_id}-{self.run_no}-{self.launches}"


class Work(msgspec.Struct, frozen=True):
    """Pending work of a job: `kind` is process_job or deliver_job."""

    kind: str
    job_id: str
    traceparent: str | None = None


class LaunchedRun(msgspec.Struct, frozen=True):
    """A run that was asked for; without `flow_run_id` Prefect has not answered. `is_old` after a minute.

    A run that an operator has paused holds no place.
    """

    run_no: int
    kind: str
    flow_run_id: UUID | None
    launched_at: datetime
    launches: int
    is_old: bool
    is_paused: bool


def take(tx: Transaction, *, runs_max: int, per_customer_max: int) -> Launch | None:
    """Return the run whose turn it is, and count it as under way; None if there is none, or no room.

    A customer with a thousand runs has a turn as often as one with a single run. A limit of the
    customer's own comes before `per_customer_max`. Half as many may be under way beside those, for work
    that has failed before.
    """
    tx.execute(_SQL["begin_turn"], {"lock": _TURN_LOCK})
    bounds = {
        "runs_max": runs_max,
        "per_customer_max": per_customer_max,
        "queue_min": QUEUE_MIN,
    }
    row = tx.execute(_SQL["take"], bounds).fetchone()
    return msgspec.convert(row, Launch) if row else None


def take_more(
    tx: Transaction, customer_id: str, flow_run_id: UUID, *, per_customer_max: int
) -> Work | None:
    """Take the customer's next small work for a run that still holds some, and so has its place.

    Return None if the run should end: there is no such work, or another customer who has fewer runs and
    may have more, or work that needs a run of its own, waits for its place.
    """
    tx.execute(_SQL["begin_turn"], {"lock": _TURN_LOCK})
    values = {
        "customer_id": customer_id,
        "flow_run_id": flow_run_id,
        "per_customer_max": per_customer_max,
        "patience_s": _PATIENCE_S,
        "ahead_max": _AHEAD_MAX,
    }
    row = tx.execute(_SQL["take_more"], values).fetchone()
    return msgspec.convert(row, Work) if row else None


def take_back(tx: Transaction, job_no: int, flow_run_id: UUID) -> list[Work]:
    """Take the first work of a run of small jobs: that of the job, and what it held before a retry."""
    values = {"job_no": job_no, "flow_run_id": flow_run_id}
    rows = tx.execute(_SQL["take_back"], values).fetchall()
    return [msgspec.convert(row, Work) for row in rows]


def hand_over(
    tx: Transaction, work: Work, flow_run_id: UUID, *, error: str | None, delay_s: float
) -> None:
    """Leave work that a run of small jobs holds to a run of its own in `delay_s` seconds.

    `error` is why it failed, or None where it was only too large.
    """
    values = {"job_id": work.job_id, "kind": work.kind, "flow_run_id": flow_run_id}
    tx.execute(_SQL["hand_over"], values | {"error": error, "delay_s": delay_s})


def record_launch(tx: Transaction, launch: Launch, flow_run_id: str) -> None:
    """Record Prefect's run of a launch, unless another launch has come since; and wake the workers."""
    values = {"run_no": launch.run_no, "launches": launch.launches, "flow_run_id": flow_run_id}
    tx.execute(_SQL["record_launch"], values)
    tx.execute(_SQL["wake_workers"], {"channel": LAUNCHED})


def find_unanswered(tx: Transaction, *, after_s: float, limit: int) -> Sequence[Launch]:
    """Return up to `limit` launches older than `after_s` seconds whose run is not known."""
    values = {"after_s": after_s, "limit": limit}
    return [msgspec.convert(row, Launch) for row in tx.execute(_SQL["find_unanswered"], values)]


def adopt(tx: Transaction, job_no: int, kind: str, flow_run_id: UUID) -> None:
    """Count a run that was started manually as the one that was asked for, if none is under way."""
    values = {"job_no": job_no, "kind": kind, "flow_run_id": flow_run_id}
    tx.execute(_SQL["adopt"], values)


def postpone(tx: Transaction, launch: Launch, *, error: str, delay_s: float) -> None:
    """Make a launch due again in `delay_s` seconds, as Prefect could not be asked.

    Another launch that has come since stays as it is.
    """
    values = {"run_no": launch.run_no, "launches": launch.launches}
    tx.execute(_SQL["postpone"], values | {"error": error, "delay_s": delay_s})


def list_under_way(tx: Transaction, *, after: int, limit: int) -> Sequence[LaunchedRun]:
    """Return a page of the runs that were asked for, by their numbers from `after` on."""
    rows = tx.execute(_SQL["list_under_way"], {"after": after, "limit": limit}).fetchall()
    return [msgspec.convert(row, LaunchedRun) for row in rows]


def wait_again(tx: Transaction, run: LaunchedRun, *, error: str, delay_s: float | None) -> bool:
    """Schedule the next launch after `delay_s` seconds; None parks the work until an operator retries.

    Return False if the row has changed since it was read.
    """
    values = {
        "run_no": run.run_no,
        "launched_at": run.launched_at,
        "error": error,
        "delay_s": delay_s,
    }
    return tx.execute(_SQL["wait_again"], values).fetchone() is not None


def make_due(tx: Transaction, job_no: int) -> list[str] | None:
    """Have a job's work launched when its turn comes, whatever it has waited for or been stopped for.

    Return its kinds, those alone that were not due; None if no work of the job waits for a run.
    """
    values = {"job_no": job_no}
    kinds = [row["kind"] for row in tx.execute(_SQL["make_due"], values)]
    if kinds:
        outbox.wake(tx)
        return kinds
    row = tx.execute(_SQL["is_any_waiting"], values).fetchone()
    return [] if row and row["is_any"] else None


def set_paused(tx: Transaction, run: LaunchedRun, *, is_paused: bool) -> bool:
    """Record that an operator has paused or resumed a run; False if the row has changed since."""
    values = {"run_no": run.run_no, "launched_at": run.launched_at, "is_paused": is_paused}
    return tx.execute(_SQL["set_paused"], values).fetchone() is not None


def give_back(tx: Transaction, job_id: str, kind: str, flow_run_id: UUID, *, error: str) -> bool:
    """Free the place of a run that ends itself, and schedule another one; False if it has no place.

    The wait grows with the launches, from `RELAUNCH_DELAY_S` to `RELAUNCH_DELAY_S_MAX`.
    """
    values = {
        "job_id": job_id,
        "kind": kind,
        "flow_run_id": flow_run_id,
        "error": error,
        "delays_s": backoff_steps(first_s=RELAUNCH_DELAY_S, max_s=RELAUNCH_DELAY_S_MAX),
    }
    return tx.execute(_SQL["give_back"], values).fetchone() is not None


def lay_down(tx: Transaction, job_id: str, kind: str, flow_run_id: UUID) -> bool:
    """Free the place of a run that ends itself as its job is paused; False if it has no place.

    Another one is launched when the job is resumed, at once where it was just then.
    """
    values = {"job_id": job_id, "kind": kind, "flow_run_id": flow_run_id}
    if tx.execute(_SQL["lay_down"], values).fetchone() is None:
        return False
    outbox.wake(tx)
    return True


def is_any_missing(tx: Transaction) -> bool:
    """Return True if a job ought to have a row and has none."""
    return tx.execute(_SQL["find_missing"], {"limit": 1}).fetchone() is not None


def add_missing(tx: Transaction, *, limit: int) -> int:
    """Add rows for up to `limit` jobs that ought to have one; return how many."""
    return len(tx.execute(_SQL["add_missing"], {"limit": limit}).fetchall())
