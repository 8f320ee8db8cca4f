"""Start Prefect runs whose turn has come, stop those of cancelled jobs, and emit jobs' events.

Any number of launchers may run. A run is counted as under way before Prefect is asked for it, so a
launcher that dies in between leaves a row that reconcile finds. Asking again with the same idempotency
key makes no second run. Messages that Prefect does not take now stay, and are tried again.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from api.background.listener import Listener
from api.metrics import Metrics
from blocks import logs, tracing
from blocks.domain.backoff import backoff_s, jitter
from blocks.domain.model import JobStatus
from blocks.prefect import job_page
from blocks.prefect.api import (
    PrefectApi,
    PrefectUnavailable,
    PrefectUnreachable,
    UnknownToPrefect,
)
from blocks.prefect.reconciler import reconcile
from blocks.settings import Settings
from blocks.store import chunks, jobs, outbox, runs
from blocks.store.database import Database, Transaction
from blocks.store.outbox import Entry
from blocks.store.runs import Launch
from deployments import names

logger = logs.get_logger("refinery.launcher")

_DEPLOYMENTS = {"process_job": names.PROCESS_JOB, "deliver_job": names.DELIVER_JOB}
_ENDS = {f"refinery.job.{end}" for end in ("completed", "failed", "cancelled")}
_STOP_S = 10.0
_DELAY_S = 1.0
_DELAY_S_MAX = 60.0
# The longest delay where Prefect is away, or knows no deployment of ours yet: work must go on soon after
# that has changed.
_AWAY_DELAY_S_MAX = 2.0
_ENTRIES_MAX = 100
# Longer than we wait for Prefect: a launcher that asked before that has died.
_UNANSWERED_S = 15.0
_UNANSWERED_MAX = 100
# Messages to Prefect, and launches, in one turn. Each is a request, and some are slow.
_TOLD_MAX = 4
_LAUNCHES_MAX = 8


class Launcher:
    """Launches and tells, in a thread that PostgreSQL's NOTIFY wakes."""

    def __init__(self, settings: Settings, database: Database, metrics: Metrics) -> None:
        self._settings = settings
        self._database = database
        self._metrics = metrics
        self._prefect = PrefectApi(settings)
        self._is_fresh = True
        self._listener = Listener(
            "launcher", outbox.CHANNEL, database, work=self._take_turn, prepare=self._prepare
        )

    def start(self) -> None:
        self._listener.start()

    def stop(self) -> None:
        """Wait for the request that is under way, and make no other."""
        self._listener.stop(_STOP_S)
        self._prefect.close()

    def _prepare(self, is_new: bool) -> None:
        """Reconcile once, and ask each time for runs whose request was not answered."""
        # With the connection, an answer of Prefect's may have been lost.
        self._ask_again(0.0 if is_new else _UNANSWERED_S)
        if self._is_fresh:
            reconcile(self._database, self._prefect, self._settings)
            self._is_fresh = False

    def _take_turn(self) -> bool:
        """Launch some runs, then send some messages, so that neither waits long; False without any."""
        launches = 0
        while launches < _LAUNCHES_MAX and not self._listener.is_stopping and self._launch_next():
            launches += 1
        return self._tell_next() or launches > 0

    def _launch_next(self) -> bool:
        """Launch a run; return False if none is due, or if Prefect would take no other one either."""
        with self._database.transaction() as tx:
            launch = runs.take(
                tx,
                runs_max=self._settings.runs_max,
                per_customer_max=self._settings.runs_per_customer_max,
            )
        if launch is None:
            return False
        return self._launch(launch)

    def _ask_again(self, after_s: float) -> None:
        """Ask again for the runs whose id is not known: by their keys, none is started twice."""
        with self._database.transaction() as tx:
            unanswered = runs.find_unanswered(tx, after_s=after_s, limit=_UNANSWERED_MAX)
        for launch in unanswered:
            if self._listener.is_stopping or not self._launch(launch):
                return

    def _launch(self, launch: Launch) -> bool:
        """Ask Prefect for a run, or postpone it. Return False if Prefect takes none now."""
        log = logger.bind(job_id=launch.job_id, kind=launch.kind, launches=launch.launches)
        try:
            with self._metrics.launch_seconds.time():
                flow_run_id = self._create_run(launch)
        except PrefectUnavailable as error:
            self._metrics.launches.labels(launch.kind, "unavailable").inc()
            is_away = isinstance(error, PrefectUnreachable | UnknownToPrefect)
            delay_s = _delay_s(launch.failures, _AWAY_DELAY_S_MAX if is_away else _DELAY_S_MAX)
            with self._database.transaction() as tx:
                runs.postpone(tx, launch, error=error.message, delay_s=delay_s)
            log.warning("launcher.postponed", reason=error.message)
            return not is_away
        self._metrics.launches.labels(launch.kind, "started").inc()
        with self._database.transaction() as tx:
            runs.record_launch(tx, launch, flow_run_id)
        log.info("launcher.started", flow_run_id=flow_run_id)
        return True

    def _create_run(self, launch: Launch) -> str:
        # A run for many jobs is in the trace of none.
        parent = None if launch.is_queue else launch.traceparent
        with tracing.span("launch run", parent=parent, kind=launch.kind, launches=launch.launches):
            if not launch.is_queue:
                tracing.note(job_id=launch.job_id)
            traceparent = tracing.traceparent() or parent
            labels = {tracing.LABEL: traceparent} if traceparent else {}
            return self._ask_for_run(launch, labels)

    def _ask_for_run(self, launch: Launch, labels: Mapping[str, str]) -> str:
        if launch.is_queue:
            # The job is no tag here: cancelling it must not stop the run for the other jobs.
            return self._prefect.create_run(
                names.SMALL_JOBS,
                name=f"small jobs of {launch.customer_id}",
                parameters={"job_id": launch.job_id},
                tags=[launch.customer_id],
                idempotency_key=launch.idempotency_key,
                labels=labels,
            )
        name = f"{launch.kind.partition('_')[0]} {launch.job_id}"
        return self._prefect.create_run(
            _DEPLOYMENTS[launch.kind],
            name=name if launch.launches == 1 else f"{name} ({launch.launches})",
            parameters={"job_id": launch.job_id},
            tags=[launch.job_id, launch.customer_id],
            idempotency_key=launch.idempotency_key,
            labels=labels,
        )

    def _tell_next(self) -> bool:
        """Send some of the due messages; return whether there were any."""
        with self._database.transaction() as tx:
            entries = _some_of(outbox.claim(tx, limit=_ENTRIES_MAX))
            events = [entry for entry in entries if entry.event]
            error: PrefectUnavailable | None = None
            for some in [*([entry] for entry in entries if not entry.event), events]:
                if not isinstance(error, PrefectUnreachable):
                    error = self._try_to_tell(tx, some)
                for entry in some:
                    if error is None:
                        outbox.mark_done(tx, entry.outbox_no)
                        continue
                    delay_s = _delay_s(entry.tries, _DELAY_S_MAX)
                    outbox.postpone(tx, entry.outbox_no, error=error.message, delay_s=delay_s)
        return bool(entries)

    def _try_to_tell(self, tx: Transaction, entries: list[Entry]) -> PrefectUnavailable | None:
        """Send one message, or events together; return why that failed, or None."""
        try:
            self._tell(tx, entries)
        except PrefectUnavailable as error:
            return error
        return None

    def _tell(self, tx: Transaction, entries: list[Entry]) -> None:
        """Stop the runs of a cancelled job, or emit the events of several jobs."""
        if not entries:
            return
        if entries[0].event:
            self._prefect.emit([_event(entry) for entry in entries])
            for entry in entries:
                if entry.event in _ENDS:
                    self._show_end(tx, entry.job_id)
            return
        # A run that is started after this finds that its job was cancelled.
        stopped = self._prefect.cancel_runs(entries[0].job_id)
        logger.info("launcher.cancelled", job_id=entries[0].job_id, runs=len(stopped))

    def _show_end(self, tx: Transaction, job_id: str) -> None:
        """Update the page of a job in Prefect's UI that has ended without a run to do it."""
        job = jobs.get(tx, job_id)
        if job is None or (job.delivery and job.status is JobStatus.COMPLETED):
            return  # the run of its delivery also shows where the results are
        codes = chunks.count_bad_codes(tx, job.job_no)
        page = job_page.page(job, codes, public_url=self._settings.public_url)
        self._prefect.show(job_page.key(job_id), page, job_page.description(job))


def _some_of(entries: Sequence[Entry]) -> list[Entry]:
    """Return the first entries, which need at most `_TOLD_MAX` requests of their own.

    Events share one request, but the page of a job that has ended takes one more. The rest stays due.
    """
    requests = accumulate(not entry.event or entry.event in _ENDS for entry in entries)
    return [entry for entry, n in zip(entries, requests, strict=True) if n <= _TOLD_MAX]


def _delay_s(failures: int, max_s: float) -> float:
    return jitter(backoff_s(failures + 1, first_s=_DELAY_S, max_s=max_s))


def _event(entry: Entry) -> dict[str, Any]:
    """Return Prefect's form of an event; its id is derived from the entry, so that it counts once.

    https://docs.prefect.io/v3/concepts/events
    """
    resource = {
        "prefect.resource.id": f"refinery.job.{entry.job_id}",
        "prefect.resource.name": entry.job_id,
        "refinery.customer-id": entry.customer_id,
    }
    return {
        "id": str(uuid5(NAMESPACE_URL, f"{entry.event}/{entry.job_id}/{entry.outbox_no}")),
        "event": entry.event,
        "occurred": entry.created_at.isoformat(),
        "resource": resource,
        "payload": {"job_id": entry.job_id, "customer_id": entry.customer_id},
    }
