"""Runs that Prefect has to do: a row each, as long as its work is not done."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from blocks.domain.backoff import backoff_steps
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("runs")

OURS = "refinery-"
"""What the idempotency keys of runs begin with that a launcher has asked for."""

# Any number that nothing else locks.
_TURN_LOCK = 7_310_563_213
# A run of its own costs a job two seconds of a core, most of them for Prefect; where a few jobs of one
# customer wait, one run does all of them.
QUEUE_MIN = 4
# What has waited for longer than this waits for a place, and not for a launcher to come to it.
_PATIENCE_S = 2.0
_AHEAD_MAX = 20

RELAUNCH_DELAY_S = 10.0
RELAUNCH_DELAY_S_MAX = 900.0
"""Bounds of the wait for another run of work whose run ended too early; it doubles each time."""


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

    @property
    def idempotency_key(self) -> str:
        """The same however often this launch is asked for, and another one for the next.

        Prefect keeps keys for each flow, as long as it keeps the runs.
        """
        return f"{OURS}{self.kind}-{self.job_id}-{self.run_no}-{self.launches}"


class Work(msgspec.Struct, frozen=True):
    """What Prefect has to do for a job: `kind` is process_job or deliver_job."""

    kind: str
    job_id: str


class LaunchedRun(msgspec.Struct, frozen=True):
    """One that was asked for; without `flow_run_id` there was no answer yet. `is_old` after a minute.

    One that an operator has paused holds no place.
    """

    run_no: int
    kind: str
    flow_run_id: UUID | None
    launched_at: datetime
    launches: int
    is_old: bool
    is_paused: bool


def take(tx: Transaction, *, runs_max: int, per_customer_max: int) -> Launch | None:
    """The run whose turn it is, counted as under way from now on; None if there is none, or no room.

    A customer with a thousand of them has its turn as often as one with a single one. Half as many as
    `per_customer_max` may be under way beside those, for work that has failed before.
    """
    tx.execute(_SQL["begin_turn"], {"lock": _TURN_LOCK})
    bounds = {
        "runs_max": runs_max,
        "per_customer_max": per_customer_max,
        "retried_per_customer_max": max(per_customer_max // 2, 1),
        "queue_min": QUEUE_MIN,
    }
    row = tx.execute(_SQL["take"], bounds).fetchone()
    return msgspec.convert(row, Launch) if row else None


def take_more(tx: Transaction, customer_id: str, flow_run_id: UUID) -> Work | None:
    """Take the customer's next small work for a run that still holds some, and so has its place.

    Return None if the run had better end: there is no such work, or its place is waited for, by another
    customer who has fewer or by work that needs a run of its own.
    """
    tx.execute(_SQL["begin_turn"], {"lock": _TURN_LOCK})
    values = {
        "customer_id": customer_id,
        "flow_run_id": flow_run_id,
        "patience_s": _PATIENCE_S,
        "ahead_max": _AHEAD_MAX,
    }
    row = tx.execute(_SQL["take_more"], values).fetchone()
    return msgspec.convert(row, Work) if row else None


def take_back(tx: Transaction, job_no: int, flow_run_id: UUID) -> list[Work]:
    """Take what a run of small jobs begins with: the job's work, and what it held before a retry."""
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
    """Prefect has a run for it; where another launch has come since, that one stays."""
    values = {"run_no": launch.run_no, "launches": launch.launches, "flow_run_id": flow_run_id}
    tx.execute(_SQL["record_launch"], values)


def find_unanswered(tx: Transaction, *, after_s: float, limit: int) -> Sequence[Launch]:
    """Launches of `after_s` seconds ago or earlier of which no run is known."""
    values = {"after_s": after_s, "limit": limit}
    return [msgspec.convert(row, Launch) for row in tx.execute(_SQL["find_unanswered"], values)]


def adopt(tx: Transaction, job_no: int, kind: str, flow_run_id: UUID) -> None:
    """Take a run that somebody has started for the one that was asked for, if none is under way."""
    values = {"job_no": job_no, "kind": kind, "flow_run_id": flow_run_id}
    tx.execute(_SQL["adopt"], values)


def postpone(tx: Transaction, launch: Launch, *, error: str, delay_s: float) -> None:
    """Prefect could not be asked; it is due again in `delay_s`, unless another launch has come since."""
    values = {"run_no": launch.run_no, "launches": launch.launches}
    tx.execute(_SQL["postpone"], values | {"error": error, "delay_s": delay_s})


def list_under_way(tx: Transaction, *, after: int, limit: int) -> Sequence[LaunchedRun]:
    """A page of those that were asked for, by their numbers from `after` on."""
    rows = tx.execute(_SQL["list_under_way"], {"after": after, "limit": limit}).fetchall()
    return [msgspec.convert(row, LaunchedRun) for row in rows]


def wait_again(tx: Transaction, run: LaunchedRun, *, error: str, delay_s: float | None) -> bool:
    """Have another run in `delay_s`, or not before somebody asks, where that is None; whether it is so.

    It is not where something else has changed the row since it was read.
    """
    values = {
        "run_no": run.run_no,
        "launched_at": run.launched_at,
        "error": error,
        "delay_s": delay_s,
    }
    return tx.execute(_SQL["wait_again"], values).fetchone() is not None


def set_paused(tx: Transaction, run: LaunchedRun, *, is_paused: bool) -> bool:
    """Record that an operator has paused or resumed a run; False if the row has changed since."""
    values = {"run_no": run.run_no, "launched_at": run.launched_at, "is_paused": is_paused}
    return tx.execute(_SQL["set_paused"], values).fetchone() is not None


def give_back(tx: Transaction, job_id: str, kind: str, flow_run_id: UUID, *, error: str) -> bool:
    """Free the place of a run that ends itself, and have another one later; False if it has none.

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


def is_any_missing(tx: Transaction) -> bool:
    """Return whether a job ought to have a row and has none."""
    return tx.execute(_SQL["find_missing"], {"limit": 1}).fetchone() is not None


def add_missing(tx: Transaction, *, limit: int) -> int:
    """Add rows for jobs that ought to have one; how many that were."""
    return len(tx.execute(_SQL["add_missing"], {"limit": limit}).fetchall())
