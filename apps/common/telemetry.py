"""Logs: structlog over the standard library. JSON lines in files, colours on a terminal; secrets are cut out of both.

Every line has `timestamp`, `level`, `logger`, `message` and, where known, `request_id` and `trace_id`. Django calls `configure`
through `LOGGING_CONFIG`; a serving process adds its file with `log_to_file`.
"""

import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor

from apps.common.context import current_scope
from apps.common.redaction import redact

FILE_BYTES = 10_000_000
FILES_KEPT = 5
QUIET = {
    "amqp": logging.WARNING,
    "asyncio": logging.WARNING,
    "celery": logging.WARNING,
    "celery.app.trace": logging.CRITICAL,
    "django.channels.server": logging.WARNING,
    "django.request": logging.ERROR,
    "django_celery_beat": logging.WARNING,
    "fastmcp": logging.WARNING,
    "httpx2": logging.WARNING,
    "kombu": logging.WARNING,
    "mcp": logging.WARNING,
    "psycopg": logging.WARNING,
    "psycopg.pool": logging.WARNING,
    "uvicorn": logging.WARNING,
    "uvicorn.access": logging.CRITICAL,
}
"""Loggers of libraries and the least level at which they are heard. The end of a task is told by `apps.common.tasks`."""

_terminal: logging.Handler | None = None
_files: dict[Path, logging.Handler] = {}


@contextmanager
def correlated(**ids: str) -> Iterator[None]:
    """Write `request_id`, `trace_id` or further ids on every line that the block logs."""
    with structlog.contextvars.bound_contextvars(**{name: value for name, value in ids.items() if value}):
        yield


def current_request_id() -> str:
    """Return the id of the request in force, or an empty text."""
    bound = structlog.contextvars.get_contextvars().get("request_id", "")
    if bound:
        return str(bound)
    scope = current_scope()
    return scope.actor.request_id if scope is not None else ""


def configure(settings: Mapping[str, Any]) -> None:
    """Set the logs up: `level` (default INFO); `stream` (default standard error); `colours` (default: on a terminal)."""
    global _terminal
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    stream = settings.get("stream", sys.stderr)
    colours = settings.get("colours")
    if colours is None:
        colours = stream.isatty()
    root = logging.getLogger()
    if _terminal is not None:
        root.removeHandler(_terminal)
    _terminal = logging.StreamHandler(stream)
    _terminal.setFormatter(_formatter(_console() if colours else _json))
    root.addHandler(_terminal)
    root.setLevel(settings.get("level", "INFO"))
    for name in ("django", "django.server"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)


def log_to_file(path: Path) -> None:
    """Write JSON lines to a file too, rotated at 10 MB, five kept; one process per file. Raises OSError."""
    if path in _files:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")
    handler.setFormatter(_formatter(_json))
    logging.getLogger().addHandler(handler)
    _files[path] = handler


def close_file(path: Path) -> None:
    """Undo `log_to_file`."""
    handler = _files.pop(path, None)
    if handler is not None:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_request_id,
        structlog.processors.format_exc_info,
        _redact_event,
    ]


def _formatter(renderer: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *_shared()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        use_get_message=True,
    )


def _console() -> Processor:
    return structlog.dev.ConsoleRenderer(colors=True, exception_formatter=structlog.dev.plain_traceback)


def _json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    first = {name: event.pop(name, None) for name in ("timestamp", "level", "logger")}
    line = {**first, "message": event.pop("event", ""), **event}
    return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _add_request_id(_: Any, __: str, event: EventDict) -> EventDict:
    if "request_id" not in event:
        scope = current_scope()
        if scope is not None and scope.actor.request_id:
            event["request_id"] = scope.actor.request_id
    return event


def _redact_event(_: Any, __: str, event: EventDict) -> EventDict:
    own = {name: value for name, value in event.items() if name.startswith("_")}
    told = {name: value for name, value in event.items() if not name.startswith("_")}
    return {**redact(told), **own}
