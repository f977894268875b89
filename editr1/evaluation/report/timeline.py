"""The time line of a run, from the JSON-lines span file that telemetry writes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from editr1.evaluation.report.model import TimeSpan
from editr1.telemetry.names import Span

_LEVELS = {Span.STAGE: 0, Span.LOAD: 1, Span.PHASE: 1, Span.COMMIT: 1, Span.CHECKPOINT: 1}


def read_spans(paths: Path | Iterable[Path]) -> tuple[TimeSpan, ...]:
    """Bars of the stages and of their parts, by start time; steps and requests are too many to draw.

    The stage is the span's attribute ``stage``, else its service; a part is named by its attribute ``phase`` or
    ``name``, else by the span's own. Lines that are not whole (a process killed while writing) are skipped.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    bars = [bar for path in files if path.exists() for bar in _bars(path)]
    return tuple(sorted(bars, key=lambda bar: (bar.start, bar.level)))


def _bars(path: Path) -> Iterable[TimeSpan]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
                bar = _bar(record)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if bar is not None:
                yield bar


def _bar(record: dict[str, Any]) -> TimeSpan | None:
    level = _LEVELS.get(record["name"])
    if level is None:
        return None
    attributes = record.get("attributes") or {}
    stage = str(attributes.get("stage") or record["service"])
    named = attributes.get("phase") or attributes.get("name")
    name = stage if level == 0 else str(named or str(record["name"]).rsplit(".", 1)[-1])
    return TimeSpan(
        name=name,
        stage=stage,
        start=float(record["start"]),
        end=max(float(record["start"]), float(record["end"])),
        ok=bool(record.get("ok", True)),
        level=level,
    )
