"""The timeline of a run, read from the span files that telemetry writes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from editr1.evaluation.report.model import TimeSpan
from editr1.telemetry.names import Span

_LEVELS = {Span.STAGE: 0, Span.LOAD: 1, Span.PHASE: 1, Span.COMMIT: 1, Span.CHECKPOINT: 1}


def read_spans(paths: Path | Iterable[Path]) -> tuple[TimeSpan, ...]:
    """Read the spans of stages and of the parts of stages, sorted by start time.

    Spans of training steps and of requests are skipped. The stage of a span is the span's attribute ``stage`` or, if it
    is missing, the span's service name. The name of a part is the attribute ``phase`` or ``name`` of its span or, if
    both are missing, the last component of the span's name. Lines that cannot be parsed are skipped, because a process
    that is killed can leave an incomplete line.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    spans = [item for path in files if path.exists() for item in _read_file(path)]
    return tuple(sorted(spans, key=lambda item: (item.start, item.level)))


def _read_file(path: Path) -> Iterable[TimeSpan]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
                item = _time_span(record)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if item is not None:
                yield item


def _time_span(record: dict[str, Any]) -> TimeSpan | None:
    level = _LEVELS.get(record["name"])
    if level is None:
        return None
    attributes = record.get("attributes") or {}
    stage = str(attributes.get("stage") or record["service"])
    part = attributes.get("phase") or attributes.get("name")
    name = stage if level == 0 else str(part or str(record["name"]).rsplit(".", 1)[-1])
    return TimeSpan(
        name=name,
        stage=stage,
        start=float(record["start"]),
        end=max(float(record["start"]), float(record["end"])),
        ok=bool(record.get("ok", True)),
        level=level,
    )
