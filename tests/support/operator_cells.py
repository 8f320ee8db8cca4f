"""Jobs whose run is in each state that an operator may find it in, and what they may press there."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import msgspec
import psycopg

from blocks.domain.object_urls import StoreType
from blocks.prefect import reconciler
from blocks.prefect.api import PrefectApi
from blocks.secrets.credentials import S3Credentials
from blocks.settings import Settings
from blocks.store import customers
from blocks.store.database import Database
from blocks.store.jobs import DeliveryTarget
from deployments import names
from deployments.embedded.stack import Stack
from tests.support.client import (
    Customer,
    cancel,
    delete,
    pause,
    paused,
    prefect_client,
    quick_run,
    resume,
    retry,
    runs_of,
    set_state,
    wait_for,
)
from tests.support.store_shop import Shop, make_chunk

PROCESS, DELIVER = "process", "deliver"
DEPLOYMENTS = {PROCESS: names.PROCESS_JOB, DELIVER: names.DELIVER_JOB}

# Some twenty runs are begun at once, on a machine that may have a lot to do.
_END_S = 300.0

UNDER_WAY = {
    "Scheduled": ["Rerun", "Cancel", "Delete"],
    "Pending": ["Rerun", "Cancel", "Delete"],
    "Running": ["Rerun", "Cancel", "Delete"],
    "AwaitingRetry": ["Rerun", "Cancel", "Delete"],
    "Suspended": ["Rerun", "Resume", "Cancel", "Delete"],
}
ENDED = {
    state: ["Rerun", "Retry", "Delete"] for state in ("Completed", "Failed", "Crashed", "Cancelled")
}
PRESSED = UNDER_WAY | ENDED
"""The buttons that Prefect's UI has for a run in each state."""


@dataclass(eq=False)
class Cell:
    """A job whose run is in `state` when an operator presses `action`, and what came of it."""

    kind: str
    state: str
    action: str
    customer: Customer = field(init=False)
    job_id: str = field(init=False)
    run_id: str = field(init=False)
    pressed: dict[str, Any] = field(init=False)
    """The job when that was done and reconcile had looked."""
    ended: dict[str, Any] = field(init=False)

    @property
    def is_stopped(self) -> bool:
        """Whether the job waits for the operator then."""
        return self.action == "Cancel" or (self.state, self.action) == ("Cancelled", "Delete")

    @property
    def says_stopped(self) -> bool:
        """Whether the job says so. One that is started again does until a worker begins the run."""
        return self.action == "Cancel" or self.state == "Cancelled"

    def __str__(self) -> str:
        return f"{self.kind}-{self.state}-{self.action}"


STOPPED = "An operator has stopped the run"


class Operator:
    """Brings runs into states, and presses what Prefect's UI shows."""

    def __init__(self, stack: Stack, store: Database, bucket: str) -> None:
        self._stack = stack
        self._store = store
        self._bucket = bucket
        self._settings = Settings(
            database_url=stack.database_url,
            encryption_key=stack.encryption_key,
            prefect_api_url=stack.prefect_api_url,
            prefect_api_auth_string=stack.prefect_auth_string,
        )
        self.prefect = prefect_client(stack)

    def play(self, cells: Sequence[Cell]) -> None:
        """Have all of them end; no worker takes a run meanwhile, but for those that are Running."""
        with ExitStack() as held:
            self._start([cell for cell in cells if cell.state == "Running"], held)
            with paused(self.prefect, names.WORK_POOL):
                self._make([cell for cell in cells if cell.state != "Running"])
                for cell in cells:
                    self._press(cell)
                for cell in cells:
                    if (cell.state, cell.action) == ("Running", "Cancel"):
                        self._wait_for_state(cell, "CANCELLED")
                self.reconcile()
                for cell in cells:
                    cell.pressed = self._said(cell)
                held.close()
        for cell in cells:
            if cell.is_stopped:
                self.rerun(cell.kind, cell.job_id)
        for cell in cells:
            cell.ended = wait_for(f"{cell} to end", partial(self._done, cell), _END_S)

    def _start(self, cells: Sequence[Cell], held: ExitStack) -> None:
        with paused(self.prefect, names.WORK_POOL):
            self._make(cells)
            for cell in cells:
                held.enter_context(self._held(cell))
        for cell in cells:
            self._wait_for_state(cell, "RUNNING")

    def _make(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            self._make_job(cell)
        for cell in cells:
            cell.run_id = wait_for(f"the run of {cell}", partial(self._run_of, cell))
        cancelled = [cell for cell in cells if cell.state == "Cancelled"]
        for cell in cancelled:
            self._bring(cell)
        if cancelled:
            self.reconcile()
        for cell in cells:
            if cell not in cancelled:
                self._bring(cell)

    def rerun(self, kind: str, job_id: str) -> str:
        """Start a run of a deployment by hand."""
        return quick_run(self.prefect, DEPLOYMENTS[kind], {"parameters": {"job_id": job_id}})

    def reconcile(self) -> None:
        with PrefectApi(self._settings) as prefect:
            reconciler.reconcile(self._store, prefect, self._settings)

    def shop(self) -> Shop:
        """A customer of its own, so that nobody's places are short."""
        return Shop(self._store, self._stack.database_url, self._settings.vault())

    def customer(self, shop: Shop) -> Customer:
        key = shop.do(customers.add_customer_key, shop.customer_id)
        return Customer(self._stack.api_url, key, shop.customer_id)

    def _make_job(self, cell: Cell) -> None:
        shop = self.shop()
        assert self._stack.object_store is not None
        address = self._stack.object_store
        credentials = S3Credentials(
            access_key_id=address.access_key_id,
            secret_access_key=address.secret_access_key,
            region="us-east-1",
            endpoint_url=address.endpoint_url,
        )
        body: dict[str, Any] = {
            "manifest_url": f"s3://{self._bucket}/m.jsonl",
            "credentials": msgspec.json.encode(credentials),
        }
        if cell.kind == DELIVER:
            prefix = f"out-{secrets.token_hex(4)}"
            target = DeliveryTarget(StoreType.S3, self._bucket, prefix)
            job = shop.processing(make_chunk(0, bad=3), delivery=target, **body)
        else:
            job = shop.submit(**body)
        cell.job_id, cell.customer = job.job_id, self.customer(shop)

    def _run_of(self, cell: Cell) -> str | None:
        found = [
            run for run in runs_of(self.prefect, cell.job_id) if run["name"].startswith(cell.kind)
        ]
        with self._store.transaction() as tx:
            row = tx.execute(
                "select flow_run_id from runs join jobs using (job_no) where job_id = %s",
                [cell.job_id],
            ).fetchone()
        # The launcher has to know it too, or reconcile would take it for another one.
        known = str(row["flow_run_id"]) if row else None
        return known if known in {run["id"] for run in found} else None

    def _bring(self, cell: Cell) -> None:
        match cell.state:
            case "AwaitingRetry":
                set_state(self.prefect, cell.run_id, type="CRASHED", name="Crashed")
                retry(self.prefect, cell.run_id)
            case "Cancelled":
                cancel(self.prefect, cell.run_id)
            case "Suspended":
                pause(self.prefect, cell.run_id)
            case "Pending" | "Completed" | "Failed" | "Crashed":
                set_state(self.prefect, cell.run_id, type=cell.state.upper(), name=cell.state)

    def _press(self, cell: Cell) -> None:
        match cell.action:
            case "Rerun":
                self.rerun(cell.kind, cell.job_id)
            case "Retry":
                retry(self.prefect, cell.run_id)
            case "Cancel":
                cancel(self.prefect, cell.run_id)
            case "Resume":
                resume(self.prefect, cell.run_id)
            case "Delete":
                delete(self.prefect, cell.run_id)

    @contextmanager
    def _held(self, cell: Cell) -> Iterator[None]:
        """A run of the job gets no further than to its first statement that changes the job."""
        with psycopg.connect(self._stack.database_url) as connection:
            connection.execute(
                "select from jobs where job_id = %s for no key update", [cell.job_id]
            )
            yield

    def _said(self, cell: Cell) -> dict[str, Any]:
        """The job, once it says that it was stopped, where it was.

        One look of reconcile may not do: another one that is under way may hold the row just then.
        """

        def look() -> dict[str, Any] | None:
            job = cell.customer.job(cell.job_id)
            if not cell.says_stopped or STOPPED in (job["waiting_for"] or {}).get("reason", ""):
                return job
            self.reconcile()
            return None

        said: dict[str, Any] = wait_for(f"what the job of {cell} says", look)
        return said

    def _wait_for_state(self, cell: Cell, state: str) -> None:
        def is_there() -> bool:
            run = self.prefect.get(f"/flow_runs/{cell.run_id}").raise_for_status().json()
            return bool(run["state"]["type"] == state)

        wait_for(f"{cell} to be {state}", is_there)

    def _done(self, cell: Cell) -> dict[str, Any] | None:
        with self._store.transaction() as tx:
            row = tx.execute(
                "select ingested_at is not null as is_read from jobs where job_id = %s",
                [cell.job_id],
            ).fetchone()
        # After that: a job looked at before may lack what was committed between the two looks.
        job = cell.customer.job(cell.job_id)
        is_done = job["status"] == "completed" if cell.kind == DELIVER else row and row["is_read"]
        return job if is_done else None

    def close(self) -> None:
        self.prefect.close()


def ended_run(prefect: httpx.Client, run_id: str) -> dict[str, Any]:
    """The run, when it has ended."""

    def look() -> dict[str, Any] | None:
        run: dict[str, Any] = prefect.get(f"/flow_runs/{run_id}").raise_for_status().json()
        ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        return run if run["state"]["type"] in ended else None

    found: dict[str, Any] = wait_for("the run to end", look)
    return found
