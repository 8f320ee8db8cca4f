"""Structured logs: an event with a fixed name, and fields.

They never hold a secret: tracebacks come without the values of variables.
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
from structlog.typing import EventDict, Processor

_TEXT = ConsoleRenderer(
    colors=False, pad_event_to=0, pad_level=False, exception_formatter=plain_traceback
)
# These have handlers of their own, which would write in another format.
_WITH_HANDLERS = ("uvicorn", "uvicorn.access")


class LogFormat(StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


def get_logger(name: str) -> BoundLogger:
    """Return a standard logger that takes fields: `logger.info("run.started", job_id=…)`.

    `logger.bind(job_id=…)` returns one whose lines all have that field.
    """
    return _wrap(logging.getLogger(name), [filter_by_level, _render])


def wrap(logger: Any, **fields: Any) -> BoundLogger:
    """Return `logger` with `fields`, which are written into the message as `name=value`."""
    return _wrap(logger, [_TEXT], **fields)


def _wrap(logger: Any, processors: list[Processor], **fields: Any) -> BoundLogger:
    wrapped = structlog.wrap_logger(
        logger, processors, wrapper_class=BoundLogger, context_class=dict, **fields
    )
    return cast(BoundLogger, wrapped)


def _render(logger: Any, method: str, event: EventDict) -> Any:
    """Leave fields to our handler where it writes; else put them into the message, not to lose them."""
    handlers = logging.getLogger().handlers
    is_ours = any(isinstance(each.formatter, ProcessorFormatter) for each in handlers)
    return (render_to_log_kwargs if is_ours else _TEXT)(logger, method, event)


def _drop_colours(_: Any, __: str, event: EventDict) -> EventDict:
    """Drop what uvicorn repeats in colours."""
    event.pop("color_message", None)
    return event


def configure(log_format: LogFormat) -> None:
    """Write all logs of this process, those of libraries too, to standard error in one format."""
    is_json = log_format is LogFormat.JSON
    written: list[Processor] = [format_exc_info, JSONRenderer()] if is_json else [_TEXT]
    formatter = ProcessorFormatter(
        foreign_pre_chain=[
            add_logger_name,
            add_log_level,
            ExtraAdder(),
            _drop_colours,
            TimeStamper(fmt="iso", utc=True),
        ],
        processors=[ProcessorFormatter.remove_processors_meta, *written],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for logger in map(logging.getLogger, _WITH_HANDLERS):
        # A logger without handlers was silenced, by `--no-access-log`.
        if logger.handlers:
            logger.handlers.clear()
            logger.propagate = True
