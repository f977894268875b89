"""Collect the spans of a run and draw them as a timeline on the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from editr1.artifacts import ArtifactStore
from editr1.telemetry import Span, json_lines

ALWAYS_SINGLE = (Span.RUN, Span.ATTEMPT, Span.POD, Span.STAGE)
"""Names of spans that are always drawn individually."""
MAX_WIDTH = 160
"""Width of the timeline in characters if the output is not a terminal."""
MAX_SINGLE = 4
"""Maximum number of spans with the same name and parent that are drawn individually. A larger group is drawn as one line."""


def gather_spans(store: ArtifactStore, run: str, local: Path | None = None) -> list[dict[str, Any]]:
    """Return the spans of a run in the store and in the file ``local``, ordered by start.

    A span that is in both is returned once. Spans of different processes are kept apart even if they have the same
    id. This occurs in runs of earlier versions, which drew ids from a seeded generator.
    """
    texts = [local.read_text(encoding="utf-8", errors="replace")] if local is not None and local.is_file() else []
    for key in store.list_records(f"runs/{run}/"):
        if "/spans/" in key and key.endswith(".jsonl"):
            texts.append((store.get_record(key) or b"").decode(errors="replace"))
    spans = {
        (item.get("service"), item["name"], item["start"], item["span"]): item
        for text in texts
        for item in _complete_spans(text)
    }
    return sorted(spans.values(), key=lambda item: float(item["start"]))


def draw(spans: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the spans as a tree with bars.

    If more than :data:`MAX_SINGLE` spans have the same name and parent, they share one line with their count and mean duration.
    """
    begin = min(float(item["start"]) for item in spans)
    length = max(float(item["end"]) for item in spans) - begin
    width = min(console.width, MAX_WIDTH)
    table = Table(box=None)
    table.add_column("span", no_wrap=True)
    for name in ("at", "seconds", ""):
        table.add_column(name, no_wrap=True)
    for depth, name, start, end, ok in timeline_rows(spans):
        bar = _bar(start - begin, end - start, length, max(10, width - 90))
        style = None if ok else "red"
        table.add_row("  " * depth + name, f"{start - begin:.1f}", f"{end - start:.1f}", bar, style=style)
    console.print(table)


def timeline_rows(spans: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str, float, float, bool]]:
    """Yield (depth, label, start, end, success) for each line of the timeline, parents first. Times are Unix times in seconds."""
    known = {item["span"] for item in spans}
    below: dict[str | None, list[Mapping[str, Any]]] = defaultdict(list)
    for item in spans:
        below[item["parent"] if item["parent"] in known else None].append(item)
    yield from _below(None, below, 0)


def _below(
    parent: str | None, below: Mapping[str | None, list[Mapping[str, Any]]], depth: int
) -> Iterator[tuple[int, str, float, float, bool]]:
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for item in below.get(parent, ()):
        groups[str(item["name"])].append(item)
    for name, items in sorted(groups.items(), key=lambda group: float(group[1][0]["start"])):
        if len(items) > MAX_SINGLE and name not in ALWAYS_SINGLE:
            seconds = [float(item["end"]) - float(item["start"]) for item in items]
            label = f"{name} x {len(items)}, mean {sum(seconds) / len(seconds):.2f} s"
            ends = max(float(item["end"]) for item in items)
            yield depth, label, float(items[0]["start"]), ends, all(item.get("ok", True) for item in items)
            continue
        for item in items:
            yield depth, _label(item), float(item["start"]), float(item["end"]), bool(item.get("ok", True))
            yield from _below(str(item["span"]), below, depth + 1)


def _label(item: Mapping[str, Any]) -> str:
    attributes = item.get("attributes") or {}
    detail = next(
        (str(attributes[key]) for key in ("stage", "phase", "input", "output", "run") if key in attributes), ""
    )
    return f"{item['name']} {detail}".rstrip()


def _bar(start: float, seconds: float, length: float, width: int) -> str:
    if length <= 0:
        return ""
    left = int(width * start / length)
    return " " * left + "█" * max(1, round(width * seconds / length))


def _complete_spans(text: str) -> Iterator[dict[str, Any]]:
    return (item for item in json_lines(text) if {"span", "name", "start", "end", "parent"} <= item.keys())
