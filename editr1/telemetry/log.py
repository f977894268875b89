"""Configure logging: plain text, or JSON lines with the trace id and the span id of the current OpenTelemetry span."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Literal, TextIO

from opentelemetry import trace

from editr1.terminal.text import visible

LogFormat = Literal["text", "json"]


def requested_format() -> LogFormat:
    """Return the log format: ``json`` if the environment variable ``EDITR1_LOG`` has this value, otherwise ``text``.

    Commands and submitted jobs use this function. A stage process reads the format from its job file.
    """
    return "json" if os.environ.get("EDITR1_LOG") == "json" else "text"


def configure_logging(log_format: LogFormat = "text", level: int = logging.INFO) -> None:
    """Configure the root logger to write to standard error in ``log_format``."""
    handler = _StandardErrorHandler()
    if log_format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("editr1").setLevel(level)
    # Warnings of urllib3 contain presigned upload URLs, which would allow anyone who reads the log to write to the
    # store.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


class _StandardErrorHandler(logging.StreamHandler[TextIO]):
    """Write to the current ``sys.stderr``: the stream of an earlier call may have been closed since."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        ctx = trace.get_current_span().get_span_context()
        line = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if ctx.is_valid:
            line |= {"trace_id": format(ctx.trace_id, "032x"), "span_id": format(ctx.span_id, "016x")}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
