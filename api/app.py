"""The application: settings in, ASGI out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from litestar import Litestar, Router
from litestar.config.compression import CompressionConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.middleware import DefineMiddleware

from api import openapi
from api.auth import ApiKeyMiddleware, KeyRing, RateLimits
from api.body_limits import BodyLimits
from api.dispatcher import Dispatcher
from api.errors import HANDLERS as ERROR_HANDLERS
from api.head import AppWithHead
from api.launcher import Launcher
from api.metrics import Metrics, RequestClock
from api.page_headers import add_page_headers
from api.preflight import Preflights
from api.rate_limits import add_rate_headers
from api.requests import StrictRequest, check_request
from api.routes import annotation, deliveries, health, job_control, jobs, quality, tasks, webhooks
from api.streams import LongReads
from api.threads import Threads
from blocks import logs
from blocks.settings import Settings
from blocks.store.database import Database

_HANDLERS = [
    *health.HANDLERS,
    *jobs.HANDLERS,
    *job_control.HANDLERS,
    *deliveries.HANDLERS,
    *quality.HANDLERS,
    *tasks.HANDLERS,
    *annotation.HANDLERS,
    *webhooks.HANDLERS,
]
_PUBLIC = ["^/health/", "^/metrics$", "^/schema"]
_LOOKUP_CONNECTIONS_MAX = 4
_HANDLERS_MIN = 16
_GZIP_BYTES_MIN = 500
_GZIP_LEVEL = 1  # it is done in the event loop, where level 9 doubles the time of an export


def from_environment() -> Litestar:
    """The application as the environment sets it up; for `python -m api`."""
    settings = Settings.from_environment()
    logs.configure(settings.log_format)
    return create_app(settings)


def create_app(settings: Settings) -> Litestar:
    """The application. Connects to nothing before it is started."""
    database = Database(settings.database_url, connections_max=settings.database_connections_max)
    # Keys, health and metrics have connections of their own, as they have threads of their own.
    lookups = Database(settings.database_url, connections_max=_LOOKUP_CONNECTIONS_MAX)
    metrics = Metrics(lookups)
    launcher = Launcher(settings, database, metrics)
    dispatcher = Dispatcher(settings, database, metrics)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        threads = app.state.threads = Threads(max(settings.database_connections_max, _HANDLERS_MIN))
        launcher.start()
        dispatcher.start()
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(dispatcher.stop)
            await anyio.to_thread.run_sync(launcher.stop)
            threads.stop()
            await anyio.to_thread.run_sync(lookups.close)
            await anyio.to_thread.run_sync(database.close)

    vault = settings.vault()
    return AppWithHead(
        # One router brings those of one path together before they are registered. Else Litestar would
        # register the first of them again with the second, and then forget to wait for its thread.
        route_handlers=[Router("/", route_handlers=_HANDLERS), *openapi.HANDLERS],
        dependencies={
            "database": _constant(database),
            "long_reads": _constant(LongReads()),
            "metrics": _constant(metrics),
            "preflights": _constant(Preflights(settings)),
            "settings": _constant(settings),
            "vault": _constant(vault),
        },
        state=State(
            {
                "body_limits": BodyLimits(settings),
                "lookups": lookups,
                "key_ring": KeyRing(lookups),
                "launcher": launcher,
                "rate_limits": RateLimits(settings),
                "settings": settings,
            }
        ),
        middleware=[RequestClock(), DefineMiddleware(ApiKeyMiddleware, exclude=_PUBLIC)],
        before_send=[metrics.count_request, add_rate_headers, add_page_headers],
        exception_handlers=ERROR_HANDLERS,
        request_class=StrictRequest,
        before_request=check_request,
        request_max_body_size=settings.request_bytes_max,
        compression_config=CompressionConfig(
            backend="gzip", minimum_size=_GZIP_BYTES_MIN, gzip_compress_level=_GZIP_LEVEL
        ),
        openapi_config=openapi.CONFIG,
        lifespan=[lifespan],
        logging_config=None,
    )


def _constant(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)
