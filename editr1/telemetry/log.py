"""Log format of all processes: plain text, or JSON lines with the trace id if ``EDITR1_LOG=json``."""

from __future__ import annotations

import json
import logging
import os
import sys

from opentelemetry import trace


def configure_logging(level: int = logging.INFO) -> None:
    """Log to standard error in the format given by ``EDITR1_LOG`` (``text`` or ``json``)."""
    handler = logging.StreamHandler(sys.stderr)
    if os.environ.get("EDITR1_LOG", "text") == "json":
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
