"""Starts and stops Prefect runs for what the outbox holds.

Any number of launchers may run: an entry is held while its run is being asked for, and others pass
over it. What cannot be started now stays, and is tried again. A run asked for twice, because we were
killed between Prefect's answer and our commit, is one run: the idempotency key is the entry's.
"""

import logging
import random
import threading

import httpx

from blocks.errors import Transient
from blocks.settings import Settings
from blocks.store import outbox
from blocks.store.database import Database
from blocks.store.outbox import Entry
from deployments import names

logger = logging.getLogger("refinery.launcher")

_DEPLOYMENTS = {"process_job": names.PROCESS_JOB, "deliver_job": names.DELIVER_JOB}
# Of a run that has not ended. https://docs.prefect.io/v3/concepts/states
_UNDER_WAY = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED"]
_POLL_S = 5.0  # for what became due without a notification: a postponed entry
_TIMEOUT_S = 10.0
_PROBE_TIMEOUT_S = 2.0
_DELAY_S_MAX = 60.0
_RECONNECT_S = 1.0


class Launcher:
    """A thread that empties the outbox into Prefect, woken by PostgreSQL's NOTIFY."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="launcher", daemon=True)
        auth = settings.prefect_api_auth_string.partition(":")
        self._prefect = httpx.Client(
            base_url=settings.prefect_api_url,
            auth=(auth[0], auth[2]) if auth[1] else None,
            timeout=_TIMEOUT_S,
        )
        self._deployment_ids: dict[str, str] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the entry that is under way."""
        self._stopping.set()
        try:
            with self._database.transaction() as tx:
                outbox.wake(tx)
        except Transient:
            pass  # the thread has lost its connection as well, and looks at the event
        self._thread.join(timeout=_TIMEOUT_S)
        self._prefect.close()

    def prefect_is_reachable(self) -> bool:
        """Whether Prefect's server answers."""
        try:
            return self._prefect.get("/health", timeout=_PROBE_TIMEOUT_S).is_success
        except httpx.HTTPError:
            return False

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                for _ in self._database.listen(outbox.CHANNEL, timeout_s=_POLL_S):
                    while not self._stopping.is_set() and self._launch_next():
                        pass
                    if self._stopping.is_set():
                        return
            except Transient as error:
                logger.warning("launcher.database_lost reason=%s", error.message)
                self._stopping.wait(_RECONNECT_S)
            except Exception:
                logger.exception("launcher.failed")
                self._stopping.wait(_RECONNECT_S)

    def _launch_next(self) -> bool:
        """Whether there was one to launch."""
        with self._database.transaction() as tx:
            entries = outbox.claim(tx, limit=1)
            for entry in entries:
                try:
                    self._handle(entry)
                    outbox.done(tx, entry.outbox_no)
                except (httpx.HTTPError, LookupError, ValueError) as error:
                    # Not only what httpx raises: a proxy may answer 200 with a page of its own.
                    delay_s = min(2.0**entry.tries, _DELAY_S_MAX) * random.uniform(0.5, 1)  # noqa: S311
                    outbox.postpone(tx, entry.outbox_no, error=repr(error), delay_s=delay_s)
                    logger.warning(
                        "launcher.postponed job_id=%s kind=%s error=%r",
                        entry.job_id,
                        entry.kind,
                        error,
                    )
        return bool(entries)

    def _handle(self, entry: Entry) -> None:
        if entry.kind == "cancel_job":
            self._stop_runs(entry)
        elif not entry.is_moot:
            self._launch(entry)

    def _stop_runs(self, entry: Entry) -> None:
        """A run that is started after this finds that its job was cancelled."""
        runs = {"tags": {"all_": [entry.job_id]}, "state": {"type": {"any_": _UNDER_WAY}}}
        found = self._prefect.post("/flow_runs/filter", json={"flow_runs": runs})
        found.raise_for_status()
        for run in found.json():
            # Prefect makes it Cancelled at once where no process has been started yet.
            state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
            self._prefect.post(f"/flow_runs/{run['id']}/set_state", json=state).raise_for_status()
            logger.info("launcher.cancelled job_id=%s run=%s", entry.job_id, run["name"])

    def _launch(self, entry: Entry) -> None:
        response = self._prefect.post(
            f"/deployments/{self._deployment_id(entry.kind)}/create_flow_run",
            json={
                "name": f"{entry.kind.partition('_')[0]} {entry.job_id}",
                "parameters": {"job_id": entry.job_id},
                "tags": [entry.job_id, entry.customer_id],
                "idempotency_key": f"refinery-{entry.kind}-{entry.job_id}-{entry.outbox_no}",
            },
        )
        if response.status_code == httpx.codes.NOT_FOUND:
            self._deployment_ids.clear()  # it was deleted and made again
        response.raise_for_status()
        logger.info("launcher.started job_id=%s kind=%s", entry.job_id, entry.kind)

    def _deployment_id(self, kind: str) -> str:
        if kind not in self._deployment_ids:
            response = self._prefect.get(f"/deployments/name/{_DEPLOYMENTS[kind]}")
            response.raise_for_status()
            self._deployment_ids[kind] = response.json()["id"]
        return self._deployment_ids[kind]
