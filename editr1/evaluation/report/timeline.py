"""Read the timeline of a run from the span files written by :mod:`editr1.telemetry`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from editr1.evaluation.report.model import TimeSpan
from editr1.telemetry.names import Span

_LEVELS = {Span.STAGE: 0, Span.LOAD: 1, Span.PHASE: 1, Span.COMMIT: 1, Span.CHECKPOINT: 1}
_MAX_DEPTH = 20


def read_spans(paths: Path | Iterable[Path]) -> tuple[TimeSpan, ...]:
    """Read the spans of stages and of the parts of stages, sorted by start time.

    Spans of training steps and of requests are skipped. The stage of a span is the attribute ``stage`` of the span or of
    the nearest span above it or, if there is none, the span's service name. The name of a part is the attribute ``phase``
    or ``name`` of its span or, if both are missing, the last component of the span's name. Lines that cannot be parsed are
    skipped, because a process that is killed can leave an incomplete line.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    records = [record for path in files if path.exists() for record in _read_file(path)]
    above = {str(record["span"]): record for record in records if "span" in record}
    spans = [item for record in records if (item := _time_span(record, above)) is not None]
    return tuple(sorted(spans, key=lambda item: (item.start, item.level)))


def _read_file(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def _time_span(record: dict[str, Any], above: Mapping[str, dict[str, Any]]) -> TimeSpan | None:
    try:
        level = _LEVELS.get(record["name"])
        if level is None:
            return None
        attributes = record.get("attributes") or {}
        stage = _stage(record, above)
        part = attributes.get("phase") or attributes.get("name")
        start, end = float(record["start"]), float(record["end"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    name = stage if level == 0 else str(part or str(record["name"]).rsplit(".", 1)[-1])
    return TimeSpan(
        name=name, stage=stage, start=start, end=max(start, end), ok=bool(record.get("ok", True)), level=level
    )


def _stage(record: dict[str, Any], above: Mapping[str, dict[str, Any]]) -> str:
    item: dict[str, Any] | None = record
    for _ in range(_MAX_DEPTH):
        if item is None or (item.get("attributes") or {}).get("stage"):
            break
        item = above.get(str(item.get("parent")))
    found = (item.get("attributes") or {}).get("stage") if item is not None else None
    return str(found or record["service"])
