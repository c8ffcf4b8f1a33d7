"""Structured logs: one JSON object on each line, and no text of a query or document in it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

__all__ = ["JsonLines", "log_to_stderr"]

_FIELDS = ("event", "request", "method", "route", "status", "ms", "caller", "error", "signal")


class JsonLines(logging.Formatter):
    """Writes a record as JSON.

    Example:
        >>> record = logging.makeLogRecord({"msg": "request", "levelname": "INFO", "status": 200})
        >>> JsonLines().format(record)
        '{"time": "...", "level": "info", "message": "request", "status": 200}'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write the fields that are known, and nothing else: no traceback, whose last line may quote a document."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= {name: record.__dict__[name] for name in _FIELDS if name in record.__dict__}
        return json.dumps(line, default=str)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the server's log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("rabtriever.serving", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level if name.startswith("rabtriever") else logging.WARNING)
