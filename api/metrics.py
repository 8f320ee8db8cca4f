"""Metrics for Prometheus: counts of this process, and sums and queues that the database keeps for all.

A count of one process starts at zero with it, and Prometheus adds them up. The figures of the database
are the same whichever process is asked.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from blocks.domain.model import DeliveryStatus, JobStatus, LabelOutcome
from blocks.store import counts
from blocks.store.counts import Queue
from blocks.store.database import Database

_LAG_BOUNDS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600)
_LAUNCH_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_BEGAN_S = "began_s"


class Metrics:
    """The counts of one process; safe to use from several threads."""

    def __init__(self) -> None:
        # prometheus_client would add a `_created` series for each, which nobody uses here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ours = self._registry = CollectorRegistry()
        self.claimed_tasks = Counter(
            "refinery_claimed_tasks", "Tasks that were handed to annotators.", registry=ours
        )
        self.labels = Counter(
            "refinery_labels",
            "Labels that were handed in; the one that settles its task is `settled`.",
            ["outcome"],
            registry=ours,
        )
        self.launches = Counter(
            "refinery_launches",
            "Runs that Prefect was asked for: it `started` one, or was `unavailable`.",
            ["kind", "outcome"],
            registry=ours,
        )
        self.launch_seconds = Histogram(
            "refinery_launch_seconds",
            "Time that Prefect took to answer when it was asked for a run.",
            buckets=_LAUNCH_BOUNDS_S,
            registry=ours,
        )
        self.webhook_attempts = Counter(
            "refinery_webhook_attempts",
            "Notifications that were sent: `delivered`, `refused` by an answer other than 2xx, or "
            "`unreachable`.",
            ["outcome"],
            registry=ours,
        )
        self.webhook_lag_seconds = Histogram(
            "refinery_webhook_lag_seconds",
            "Time from what happened to the first attempt to tell of it.",
            buckets=_LAG_BOUNDS_S,
            registry=ours,
        )
        self.request_seconds = Histogram(
            "refinery_request_seconds",
            "Time from the headers of a request to those of its answer.",
            ["method", "route", "status"],
            registry=ours,
        )
        for outcome in LabelOutcome:
            self.labels.labels(outcome)
        self._outside = _Outside()
        ours.register(self._outside)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=ours)

    def encoded(
        self, accept: str, kept: Sequence[Metric] | None, has_prefect: bool
    ) -> tuple[bytes, str]:
        """Return all metrics as text in the format that the client accepts, and its media type.

        `kept` comes from `read_kept`, and is None where the database does not answer. Only one thread
        may call this at a time.
        """
        self._outside.found = [*_up(kept, has_prefect), *(kept or ())]
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    async def count_request(self, message: Message, scope: Scope) -> None:
        """Count an answer: Litestar's `before_send`, which sees those of middlewares as well.

        Litestar's own plugin counts these as 200. Requests for unknown routes are not counted.
        """
        if (
            scope["type"] == ScopeType.HTTP
            and message["type"] == "http.response.start"
            and _BEGAN_S in scope["state"]
        ):
            took_s = time.perf_counter() - scope["state"][_BEGAN_S]
            labels = (scope["method"], scope["path_template"], str(int(message["status"])))
            self.request_seconds.labels(*labels).observe(took_s)


class RequestClock(ASGIMiddleware):
    """Note when a request came, for `Metrics.count_request`."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        scope["state"][_BEGAN_S] = time.perf_counter()
        await next_app(scope, receive, send)


class _Outside(Collector):
    """The figures of the database and of Prefect, for one scrape."""

    def __init__(self) -> None:
        self.found: Sequence[Metric] = ()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering asks neither the database nor Prefect."""
        return []

    def collect(self) -> Iterable[Metric]:
        return self.found


def _up(kept: Sequence[Metric] | None, has_prefect: bool) -> Iterator[Metric]:
    database = GaugeMetricFamily("refinery_database_up", "Whether the database answers.")
    database.add_metric([], float(kept is not None))
    yield database
    prefect = GaugeMetricFamily("refinery_prefect_up", "Whether Prefect answers.")
    prefect.add_metric([], float(has_prefect))
    yield prefect


def read_kept(database: Database) -> Sequence[Metric]:
    """Return the figures that the database keeps, as metrics.

    Raises:
        DatabaseUnavailable: it does not answer.
    """
    with database.transaction() as tx:
        totals, queues = counts.totals(tx), counts.queues(tx)
    return [*_totals(totals), *_queues(queues)]


def _totals(totals: Mapping[tuple[str, str], float]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("refinery_jobs", "Jobs by their state.", labels=["status"])
    for status in JobStatus:
        jobs.add_metric([status], totals.get(("jobs", status), 0))
    yield jobs
    lines = CounterMetricFamily("refinery_lines", "Lines of manifests that were recorded.")
    lines.add_metric([], totals.get(("lines", ""), 0))
    yield lines
    bad = CounterMetricFamily("refinery_bad_lines", "Those of them that are bad.", labels=["code"])
    deliveries = CounterMetricFamily(
        "refinery_deliveries", "Deliveries by how they ended, each try of one.", labels=["outcome"]
    )
    for outcome in (DeliveryStatus.DELIVERED, DeliveryStatus.FAILED):
        deliveries.add_metric([outcome], totals.get(("deliveries", outcome), 0))
    for (name, label), total in totals.items():
        if name == "bad_lines":
            bad.add_metric([label], total)
    yield bad
    yield deliveries
    yield _histogram(
        "refinery_trigger_seconds",
        "Time from the POST of a job to the first line of its flow.",
        {label: total for (name, label), total in totals.items() if name == "start_s"},
        totals.get(("start_s_sum", ""), 0),
    )


def _histogram(
    name: str, documentation: str, within: Mapping[str, float], total: float
) -> HistogramMetricFamily:
    """Return a histogram; `within` counts for each bound only what no lower bound has counted."""
    buckets: list[tuple[str, float]] = []
    so_far = 0.0
    for bound in sorted(within, key=float):
        so_far += within.get(bound, 0)
        buckets.append((bound, so_far))
    family = HistogramMetricFamily(name, documentation)
    family.add_metric([], buckets, total)
    return family


def _queues(queues: Iterable[Queue]) -> Iterator[Metric]:
    depth = GaugeMetricFamily(
        "refinery_queue_depth", "What waits, counted up to 100,000.", labels=["queue"]
    )
    oldest = GaugeMetricFamily(
        "refinery_queue_oldest_seconds", "How long the first of it has waited.", labels=["queue"]
    )
    for queue in queues:
        depth.add_metric([queue.name], queue.depth)
        oldest.add_metric([queue.name], max(queue.oldest_s or 0, 0))
    yield depth
    yield oldest
