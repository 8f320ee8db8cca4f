"""Structured logs: an event with a fixed name, and what it is about as fields.

Never a secret: tracebacks come without the values of variables.
"""

import logging
from enum import StrEnum
from typing import Any, cast

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
from structlog.stdlib import (
    BoundLogger,
    ExtraAdder,
    ProcessorFormatter,
    add_log_level,
    add_logger_name,
    filter_by_level,
    render_to_log_kwargs,
)
from structlog.typing import Processor

_TEXT = ConsoleRenderer(
    colors=False, pad_event_to=0, pad_level=False, exception_formatter=plain_traceback
)
# Each has handlers of its own, which would write in another format.
_WITH_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access")


class LogFormat(StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


def get_logger(name: str) -> BoundLogger:
    """A logger of the standard library that takes fields: `logger.info("run.started", job_id=…)`.

    `logger.bind(job_id=…)` is one whose lines all have that field.
    """
    processors: list[Processor] = [filter_by_level, render_to_log_kwargs]
    return wrap(logging.getLogger(name), processors)


def wrap(logger: Any, processors: list[Processor] | None = None, **fields: Any) -> BoundLogger:
    """`logger` with fields; without `processors` they are written into the message as `name=value`."""
    wrapped = structlog.wrap_logger(
        logger, processors or [_TEXT], wrapper_class=BoundLogger, context_class=dict, **fields
    )
    return cast(BoundLogger, wrapped)


def configure(log_format: LogFormat) -> None:
    """Have all of this process's logs, whosever they are, written to standard error in one format."""
    is_json = log_format is LogFormat.JSON
    written: list[Processor] = [format_exc_info, JSONRenderer()] if is_json else [_TEXT]
    formatter = ProcessorFormatter(
        foreign_pre_chain=[
            add_logger_name,
            add_log_level,
            ExtraAdder(),
            TimeStamper(fmt="iso", utc=True),
        ],
        processors=[ProcessorFormatter.remove_processors_meta, *written],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for name in _WITH_HANDLERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
