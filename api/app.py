"""Assemble the application from its settings: connections, routes, background threads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from litestar import Litestar, Router
from litestar.config.compression import CompressionConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.middleware import DefineMiddleware
from litestar.routes import HTTPRoute

from api.auth import (
    ADMINS_ONLY,
    ANNOTATORS_ONLY,
    CUSTOMERS_ONLY,
    ApiKeyMiddleware,
    KeyRing,
    RateLimits,
)
from api.background.caretaker import Caretaker
from api.background.dispatcher import Dispatcher
from api.background.launcher import Launcher
from api.draining import Draining
from api.examples import ANSWERS, REQUESTS
from api.http import cors, openapi
from api.http.body_limits import BodyLimits
from api.http.errors import HANDLERS as ERROR_HANDLERS
from api.http.head import AppWithHead
from api.http.page_headers import add_page_headers
from api.http.rate_limits import add_rate_headers
from api.http.requests import StrictRequest, check_request
from api.http.streams import COMPRESSES_ITSELF, LongReads
from api.http.threads import Threads
from api.http.traced_requests import TracedRequests
from api.metrics import VERSION, Metrics, RequestClock
from api.preflight import Preflights
from api.probes import Probes
from api.routes import (
    annotation,
    audit,
    customer_limits,
    customers,
    delivered,
    deliveries,
    disagreements,
    health,
    inference,
    job_annotators,
    job_changes,
    job_control,
    job_events,
    job_preview,
    job_results,
    job_retries,
    job_timeline,
    jobs,
    keys,
    labels,
    operations,
    operations_lists,
    own_work,
    pauses,
    quality,
    reviews,
    session,
    tasks,
    webhook_messages,
    webhooks,
)
from api.routes.job_feed import JobFeed
from api.signing import UrlSigner
from api.web import pages
from blocks import logs, tracing
from blocks.prefect.api import PrefectApi
from blocks.settings import Settings
from blocks.store.database import Database
from blocks.store.quotas import Quotas

logger = logs.get_logger("refinery.api")

_PUBLIC = ["^/health/", "^/metrics$", "^/schema", *pages.PUBLIC]
_LOOKUP_CONNECTIONS_MAX = 4
_PROBE_CONNECTIONS_MAX = 2
_BACKGROUND_CONNECTIONS_MAX = 5
# Upper bounds on one statement, and on its wait for a lock.
_REQUEST_S_MAX = 10.0
_LOOKUP_S_MAX = 3.0
_BACKGROUND_S_MAX = 60.0
_LOCK_S_MAX = 5.0
_GZIP_BYTES_MIN = 500
_GZIP_LEVEL = (
    1  # this runs in the event loop; exports and other long answers compress by themselves
)


def from_environment() -> Litestar:
    """Return the application as the environment sets it up; for `python -m api`."""
    settings = Settings.from_environment()
    logs.configure(settings.log_format)
    tracing.start("refinery-api")
    app = create_app(settings)
    app.on_shutdown.append(tracing.stop)  # uvicorn ends by the signal itself
    return app


def create_app(settings: Settings) -> Litestar:
    """Return the application. It connects to nothing before it is started."""
    # Each kind of work has connections of its own, as it has threads, so that none holds up another.
    database = _database(settings, settings.database_connections_max, _REQUEST_S_MAX)
    lookups = _database(settings, _LOOKUP_CONNECTIONS_MAX, _LOOKUP_S_MAX)
    probed = _database(settings, _PROBE_CONNECTIONS_MAX, _LOOKUP_S_MAX)
    background = _database(settings, _BACKGROUND_CONNECTIONS_MAX, _BACKGROUND_S_MAX)
    pools = {"requests": database, "keys": lookups, "probes": probed, "background": background}
    metrics = Metrics(pools)
    long_reads = LongReads()
    job_feed = JobFeed(background)
    draining = Draining(settings.drain_s)
    launcher = Launcher(settings, background, metrics)
    dispatcher = Dispatcher(settings, background, metrics)
    caretaker = Caretaker(settings, background)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        threads = app.state.threads = Threads(settings.database_connections_max)
        async with threads.watched(long_reads.give_up), job_feed.kept_up(threads.looks):
            with PrefectApi(settings) as prefect, draining.heeding_sigterm():
                app.state.prefect = prefect
                app.state.probes = Probes(threads, probed, prefect)
                logger.info("api.started", version=VERSION)
                launcher.start()
                dispatcher.start()
                caretaker.start()
                try:
                    yield
                finally:
                    await anyio.to_thread.run_sync(caretaker.stop)
                    await anyio.to_thread.run_sync(dispatcher.stop)
                    await anyio.to_thread.run_sync(launcher.stop)
        for each in (database, lookups, probed, background):
            await anyio.to_thread.run_sync(each.close)

    vault = settings.vault()
    app = AppWithHead(
        route_handlers=[*_routers(), *openapi.HANDLERS, *pages.handlers(settings)],
        dependencies={
            "database": _constant(database),
            "long_reads": _constant(long_reads),
            "lookups": _constant(lookups),
            "metrics": _constant(metrics),
            "preflights": _constant(Preflights(settings)),
            "settings": _constant(settings),
            "url_signer": _constant(UrlSigner(vault, settings.gcs_endpoint_url)),
            "vault": _constant(vault),
        },
        state=State(
            {
                "body_limits": BodyLimits(settings),
                "draining": draining,
                "job_feed": job_feed,
                "key_ring": KeyRing(lookups),
                "launcher": launcher,
                "quotas": Quotas(),
                "rate_limits": RateLimits(settings),
                "settings": settings,
            }
        ),
        middleware=[
            RequestClock(),
            DefineMiddleware(ApiKeyMiddleware, exclude=_PUBLIC),
            *([TracedRequests()] if tracing.is_on() else []),
        ],
        before_send=[metrics.count_request, add_rate_headers, add_page_headers],
        exception_handlers=ERROR_HANDLERS,
        cors_config=cors.config(settings.allowed_origins()),
        request_class=StrictRequest,
        before_request=check_request,
        request_max_body_size=settings.request_bytes_max,
        compression_config=CompressionConfig(
            backend="gzip",
            minimum_size=_GZIP_BYTES_MIN,
            gzip_compress_level=_GZIP_LEVEL,
            exclude_opt_key=COMPRESSES_ITSELF,
        ),
        openapi_config=openapi.config(REQUESTS, ANSWERS),
        lifespan=[lifespan],
        logging_config=None,
    )
    _resolve_one_by_one(app)
    _allow_all_methods(app)
    return app


def _resolve_one_by_one(app: Litestar) -> None:
    """Have the dependencies of a handler, which are constants, handed to it one by one.

    Litestar starts an asyncio task for each of several, which takes a quarter of a small request.
    """
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for _, model in route.route_handler_map.values():
                batches = model.dependency_batches
                model.dependency_batches = [{each} for batch in batches for each in batch]


def _allow_all_methods(app: Litestar) -> None:
    """Have `OPTIONS` of a path name all its methods.

    Litestar makes its handler with the first of a path's methods, and names no others ever after.
    """
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            stale, model = route.route_handler_map["OPTIONS"]
            fresh = route.create_options_handler(route.path)
            fresh.owner = stale.owner
            fresh.on_registration(app)
            route.route_handler_map["OPTIONS"] = (fresh, model)


def _routers() -> list[Router]:
    """Return a router for each noun, which says whose key its routes take."""
    # Litestar: two handlers of one path that are registered separately lose `sync_to_thread`. A router
    # brings them together.
    nouns = (
        jobs, job_control, job_events, job_preview, job_timeline, job_annotators, job_results,
        deliveries, delivered, quality, disagreements, inference,
    )  # fmt: skip
    of_jobs = [handler for noun in nouns for handler in noun.HANDLERS]
    of_webhooks = [*webhooks.HANDLERS, *webhook_messages.HANDLERS]
    of_annotation = [*annotation.HANDLERS, *labels.HANDLERS, *reviews.HANDLERS, *own_work.HANDLERS]
    return [
        Router("/", route_handlers=health.HANDLERS, tags=["Operations"], security=[{}]),
        Router("/v1/jobs", route_handlers=of_jobs, tags=["Jobs"], opt=CUSTOMERS_ONLY),
        Router("/v1/tasks", route_handlers=tasks.HANDLERS, tags=["Tasks"], opt=CUSTOMERS_ONLY),
        Router(
            "/v1/annotation", route_handlers=of_annotation, tags=["Annotation"], opt=ANNOTATORS_ONLY
        ),
        Router(
            "/v1/customers", route_handlers=customers.HANDLERS, tags=["Operations"], opt=ADMINS_ONLY
        ),
        Router(
            "/v1/operations",
            route_handlers=[
                *operations.HANDLERS,
                *operations_lists.HANDLERS,
                *job_retries.HANDLERS,
                *pauses.HANDLERS,
                *job_changes.HANDLERS,
                *customer_limits.HANDLERS,
            ],
            tags=["Operations"],
            opt=ADMINS_ONLY,
        ),
        Router("/v1/audit", route_handlers=audit.HANDLERS, tags=["Keys"], opt=CUSTOMERS_ONLY),
        Router("/v1/keys", route_handlers=keys.HANDLERS, tags=["Keys"], opt=CUSTOMERS_ONLY),
        Router("/v1/session", route_handlers=session.HANDLERS, tags=["Sessions"]),
        Router("/v1/webhooks", route_handlers=of_webhooks, tags=["Webhooks"], opt=CUSTOMERS_ONLY),
    ]


def _database(settings: Settings, connections_max: int, statement_s_max: float) -> Database:
    return Database(
        settings.database_url,
        connections_max=connections_max,
        statement_s_max=statement_s_max,
        lock_s_max=_LOCK_S_MAX,
    )


def _constant(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)
