"""One log format for every process: plain lines for people, JSON lines with the trace id when ``EDITR1_LOG=json``."""

from __future__ import annotations

import json
import logging
import os
import sys

from opentelemetry import trace


def configure_logging(level: int = logging.INFO) -> None:
    """Send the root logger to standard error in the format that ``EDITR1_LOG`` (``text`` or ``json``) asks for."""
    handler = logging.StreamHandler(sys.stderr)
    if os.environ.get("EDITR1_LOG", "text") == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("editr1").setLevel(level)
    # Its warnings hold whole URLs, and those of uploads are signed: whoever reads the log could write.
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
