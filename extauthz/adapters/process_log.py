"""The process log: a JSON object per line on standard error. Its lines hold no secret."""

from __future__ import annotations

import logging
import sys
from typing import IO, Any

# structlog looks for rich, for a renderer that is not used here: 6 MB of every process, and 60 ms of its start.
_modules: dict[str, Any] = sys.modules
_hidden = [name for name in ("rich", "rich.traceback") if _modules.setdefault(name, None) is None]

import structlog  # noqa: E402
from structlog.typing import EventDict, WrappedLogger  # noqa: E402

for _name in _hidden:
    del _modules[_name]


def configure(stream: IO[str] | None = None) -> None:
    """Send the standard library's logging to one stream, a JSON object per line."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.processors.TimeStamper("%Y-%m-%dT%H:%M:%SZ", key="time"),
                _head,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.format_exc_info,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for chatty in ("httpx2", "httpcore2", "alembic", "uvicorn", "asyncio", "grpc", "watchfiles"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _head(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put time, level, logger and message in front."""
    record: logging.LogRecord = event["_record"]
    head = {"time": event.pop("time"), "level": record.levelname, "logger": record.name, "message": event.pop("event")}
    return {**head, **event}
