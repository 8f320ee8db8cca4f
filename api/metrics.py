"""Metrics for Prometheus: counts of this process, which start at zero with it. Prometheus adds them up.

Each known value of a label has a series from the start: without one, a rate misses the first event.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import product

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from blocks.domain.model import LabelOutcome
from blocks.store.database import Database

_LAG_BOUNDS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600)
_LAUNCH_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_BEGAN_S = "began_s"

VERSION = version("refinery-jobs")

_LAUNCHES = tuple(product(("process_job", "deliver_job"), ("started", "unavailable")))
_ATTEMPTS = ("delivered", "refused", "unreachable")


class Metrics:
    """The counts of one process; safe to use from several threads.

    `pools` are its connections to the database, by what they are for.
    """

    def __init__(self, pools: Mapping[str, Database] | None = None) -> None:
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
        build = Gauge(
            "refinery_build_info", "1; the label says the version.", ["version"], registry=ours
        )
        build.labels(VERSION).set(1)
        for outcome in LabelOutcome:
            self.labels.labels(outcome)
        for launch in _LAUNCHES:
            self.launches.labels(*launch)
        for attempt in _ATTEMPTS:
            self.webhook_attempts.labels(attempt)
        ours.register(_Pools(pools or {}))
        self._outside = _Outside()
        ours.register(self._outside)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=ours)

    def encoded(self, accept: str, outside: Sequence[Metric]) -> tuple[bytes, str]:
        """Return all metrics as text in the format that the client accepts, and its media type.

        `outside` are those of the database and of Prefect. Only one thread may call this at a time.
        """
        self._outside.found = outside
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


class _Pools(Collector):
    """How much of each pool of connections is in use, for one scrape."""

    def __init__(self, pools: Mapping[str, Database]) -> None:
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        in_use = GaugeMetricFamily(
            "refinery_database_connections",
            "Connections to the database that this process uses at the moment.",
            labels=["pool"],
        )
        most = GaugeMetricFamily(
            "refinery_database_connections_max", "How many it may use.", labels=["pool"]
        )
        waiting = GaugeMetricFamily(
            "refinery_database_connections_waiting", "Threads that wait for one.", labels=["pool"]
        )
        for name, pool in self._pools.items():
            use = pool.use()
            in_use.add_metric([name], use.in_use)
            most.add_metric([name], use.most)
            waiting.add_metric([name], use.waiting)
        yield from (in_use, most, waiting)


class _Outside(Collector):
    """The figures of the database and of Prefect, for one scrape."""

    def __init__(self) -> None:
        self.found: Sequence[Metric] = ()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering asks neither the database nor Prefect."""
        return []

    def collect(self) -> Iterable[Metric]:
        return self.found
