"""One log format for every process: plain lines for people, or JSON lines that carry the trace id."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Literal

from opentelemetry import trace

LogFormat = Literal["text", "json"]


def requested_format() -> LogFormat:
    """Return the format that ``EDITR1_LOG`` requests: ``json``, else ``text``.

    Read where a process is started by hand or a job is submitted; a stage process has it in its job file.
    """
    return "json" if os.environ.get("EDITR1_LOG") == "json" else "text"


def configure_logging(log_format: LogFormat = "text", level: int = logging.INFO) -> None:
    """Send the root logger to standard error in ``log_format``."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("editr1").setLevel(level)
    # urllib3's warnings contain URLs, and upload URLs are signed: a reader of the log could write to the store.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


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
