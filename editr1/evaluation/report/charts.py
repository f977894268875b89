"""Charts of the page as inline SVG and as positions for HTML bars. Colours come from the page's CSS classes.

Every piece of text goes through :class:`markupsafe.Markup` formatting, which escapes it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from editr1.evaluation.report.formats import number, scientific, seconds, short
from editr1.evaluation.report.model import LineageEdge, LineageNode, Point, TimeSpan

_WIDTH, _HEIGHT = 320, 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 30
_MOST_POINTS = 240
_SMOOTH_FROM = 30


class Bar(NamedTuple):
    """A bar of the time line: position and length in per cent of the run, its words, and how deep it lies."""

    left: float
    width: float
    title: str
    level: int
    ok: bool


class Track(NamedTuple):
    """All bars of one stage."""

    stage: str
    duration: str
    bars: tuple[Bar, ...]


def line_chart(
    name: str, points: Sequence[Point], x_label: str = "step", other: tuple[str, Sequence[Point]] | None = None
) -> Markup:
    """A curve with three to five ticks an axis.

    From 30 points on the raw values are drawn thin under a running mean. Values that are not finite leave a gap; with
    no finite value at all the result is empty. ``other`` is a second curve on the same axes, with its name.
    """
    kept, second = _kept(points), _kept(other[1]) if other else []
    values = [y for _, y in kept if math.isfinite(y)]
    if not values:
        return Markup("")
    drawn = _reduced(kept)
    across_all = [x for x, _ in (*kept, *second)]
    x_low, x_high = min(across_all), max(across_all)
    x_ticks = nice_ticks(x_low, x_high, 4)
    up_all = [*values, *(y for _, y in second if math.isfinite(y))]
    y_ticks = nice_ticks(min(up_all), max(up_all), 4)
    y_low, y_high = min(y_ticks[0], *up_all), max(y_ticks[-1], *up_all)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1.0)
        up = (y - y_low) / ((y_high - y_low) or 1.0)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts: list[Markup] = []
    digits = _digits(y_ticks)
    for tick in y_ticks:
        _, y = place(x_low, tick)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, _WIDTH - _RIGHT, y, y)
        )
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                _LEFT - 6, y + 3.5, _told(tick, digits)
            )
        )
    for tick in x_ticks:
        if x_low <= tick <= x_high:
            x, _ = place(tick, y_low)
            parts.append(
                Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                    x, _HEIGHT - _BOTTOM + 15, number(tick, _digits(x_ticks))
                )
            )
    if second:
        parts.append(_path(_reduced(second), place, "curve other"))
    smooth = len(drawn) >= _SMOOTH_FROM
    parts.append(_path(drawn, place, "raw" if smooth else "curve"))
    if smooth:
        parts.append(_path(_running_mean(drawn), place, "curve"))
    last_x, last_y = next((x, y) for x, y in reversed(kept) if math.isfinite(y))
    step = max(1, len(drawn) // 40)
    for x, y in drawn[::step]:
        if math.isfinite(y):
            cx, cy = place(x, y)
            parts.append(
                Markup('<circle class="hover" cx="{:.1f}" cy="{:.1f}" r="7"><title>{} {}: {}</title></circle>').format(
                    cx, cy, x_label, number(x, 0), _told(y, digits + 1)
                )
            )
    label = f"{name} by {x_label}: from {_told(values[0], digits + 1)} to {_told(last_y, digits + 1)} at {last_x:g}"
    if other and second:
        label += f"; {other[0]}: from {_told(second[0][1], digits + 1)} to {_told(second[-1][1], digits + 1)}"
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, label, Markup("").join(parts)
    )


def _kept(points: Sequence[Point]) -> list[Point]:
    return [(float(x), float(y)) for x, y in points if math.isfinite(x)]


def levels(curves: Mapping[str, Sequence[Point]]) -> dict[str, float]:
    """The curves of several finite values that never move, each with its value."""
    values = {name: [y for _, y in points if math.isfinite(y)] for name, points in curves.items()}
    return {name: found[0] for name, found in values.items() if len(found) > 1 and len(set(found)) == 1}


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) that cover [low, high], at most ``most`` + 2 of them."""
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1.0, 2.0, 5.0, 10.0) if power * factor >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def tracks(spans: Sequence[TimeSpan]) -> tuple[tuple[Track, ...], tuple[tuple[float, str], ...]]:
    """Rows of the time line by stage, in order of their start, and the axis as (per cent, label)."""
    if not spans:
        return (), ()
    begin, end = min(s.start for s in spans), max(s.end for s in spans)
    whole = (end - begin) or 1.0
    rows: dict[str, list[TimeSpan]] = defaultdict(list)
    for item in sorted(spans, key=lambda s: (s.start, s.level)):
        rows[item.stage].append(item)
    found = tuple(
        Track(stage, seconds(_covered(items)), tuple(_bar(item, begin, whole) for item in items))
        for stage, items in rows.items()
    )
    ticks = [t for t in nice_ticks(0.0, whole / 60.0 if whole >= 120 else whole, 5) if t >= 0]
    unit, factor = (" min", 60.0) if whole >= 120 else (" s", 1.0)
    axis = tuple((100 * t * factor / whole, f"{t:g}{unit}") for t in ticks if t * factor <= whole * 1.0001)
    return found, axis


def lineage_chart(nodes: Sequence[LineageNode], edges: Sequence[LineageEdge]) -> Markup:
    """Artifacts from left to right, each right of all its parents. Edges to unknown digests are left out."""
    if not nodes:
        return Markup("")
    known = {node.digest: node for node in nodes}
    links = [e for e in edges if e.parent in known and e.child in known and e.parent != e.child]
    depth = _depths([node.digest for node in nodes], links)
    layers: dict[int, list[str]] = defaultdict(list)
    for node in nodes:
        layers[depth[node.digest]].append(node.digest)
    place = _placed(layers, links)
    box_w, box_h, gap_x, gap_y = 148, 42, 52, 18
    tallest = max(len(layer) for layer in layers.values())
    width = (max(layers) + 1) * (box_w + gap_x) - gap_x + 4
    height = tallest * (box_h + gap_y) - gap_y + 4

    def corner(digest: str) -> tuple[float, float]:
        layer = layers[depth[digest]]
        offset = (tallest - len(layer)) * (box_h + gap_y) / 2
        return 2 + depth[digest] * (box_w + gap_x), 2 + offset + place[digest] * (box_h + gap_y)

    parts: list[Markup] = []
    for link in links:
        (x1, y1), (x2, y2) = corner(link.parent), corner(link.child)
        x1, y1, y2 = x1 + box_w, y1 + box_h / 2, y2 + box_h / 2
        bend = (x2 - x1) / 2
        parts.append(
            Markup('<path class="edge" d="M{:.1f},{:.1f} C{:.1f},{:.1f} {:.1f},{:.1f} {:.1f},{:.1f}"/>').format(
                x1, y1, x1 + bend, y1, x2 - bend, y2, x2, y2
            )
        )
    for node in nodes:
        x, y = corner(node.digest)
        parts.append(
            Markup(
                '<g><title>{} {}</title><rect class="node" x="{:.1f}" y="{:.1f}" width="{}" height="{}" rx="6"/>'
                '<text class="node-label" x="{:.1f}" y="{:.1f}">{}</text>'
                '<text class="node-digest" x="{:.1f}" y="{:.1f}">{}</text></g>'
            ).format(
                node.label, node.digest, x, y, box_w, box_h,
                x + 10, y + 17, _clipped(node.label, 20), x + 10, y + 33, short(node.digest),
            )
        )  # fmt: skip
    return Markup(
        '<svg class="lineage" viewBox="0 0 {} {}" width="{}" role="img" aria-label="{} artifacts and {} links; '
        'the table below says the same">{}</svg>'
    ).format(width, height, width, len(nodes), len(links), Markup("").join(parts))


def _bar(item: TimeSpan, begin: float, whole: float) -> Bar:
    long = item.end - item.start
    title = f"{item.name}: {seconds(long)}, from {seconds(item.start - begin)}" + ("" if item.ok else ", failed")
    return Bar(100 * (item.start - begin) / whole, 100 * long / whole, title, item.level, item.ok)


def _covered(items: Sequence[TimeSpan]) -> float:
    """Seconds that the spans cover, overlaps once."""
    total, reached = 0.0, -math.inf
    for item in sorted(items, key=lambda s: s.start):
        total += max(0.0, item.end - max(item.start, reached))
        reached = max(reached, item.end)
    return total


def _reduced(points: Sequence[Point]) -> list[Point]:
    """At most 240 points: means over equal runs of neighbours."""
    run = math.ceil(len(points) / _MOST_POINTS)
    if run <= 1:
        return list(points)
    found: list[Point] = []
    for start in range(0, len(points), run):
        some = points[start : start + run]
        ys = [y for _, y in some if math.isfinite(y)]
        found.append((sum(x for x, _ in some) / len(some), sum(ys) / len(ys) if ys else math.nan))
    return found


def _running_mean(points: Sequence[Point]) -> list[Point]:
    half = max(2, len(points) // 24)
    found: list[Point] = []
    for i, (x, y) in enumerate(points):
        near = [v for _, v in points[max(0, i - half) : i + half + 1] if math.isfinite(v)]
        found.append((x, sum(near) / len(near) if near and math.isfinite(y) else math.nan))
    return found


def _path(points: Sequence[Point], place: object, css: str) -> Markup:
    assert callable(place)
    steps: list[str] = []
    pen_down = False
    for x, y in points:
        if math.isfinite(y):
            px, py = place(x, y)
            steps.append(f"{'L' if pen_down else 'M'}{px:.1f},{py:.1f}")
        pen_down = math.isfinite(y)
    if len(steps) == 1:
        steps.append("h.01")
    return Markup('<path class="{}" d="{}"/>').format(css, " ".join(steps))


def _digits(ticks: Sequence[float]) -> int:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _told(value: float, digits: int) -> str:
    """With ``digits`` decimals, or as a power of ten where they would be mostly zeros."""
    if digits <= 6:
        return number(value, digits)
    if value == 0 or not math.isfinite(value):
        return number(value, 0)
    return scientific(value, max(0, digits + math.floor(math.log10(abs(value)))))


def _depths(digests: Sequence[str], links: Sequence[LineageEdge]) -> dict[str, int]:
    """Longest way from a root; a circle, which a store cannot hold, is cut rather than followed for ever."""
    depth = dict.fromkeys(digests, 0)
    for _ in range(len(digests)):
        moved = False
        for link in links:
            if depth[link.child] < depth[link.parent] + 1 <= len(digests):
                depth[link.child] = depth[link.parent] + 1
                moved = True
        if not moved:
            break
    return depth


def _placed(layers: dict[int, list[str]], links: Sequence[LineageEdge]) -> dict[str, int]:
    """Row of each artifact in its layer: sorted once by the mean row of its parents, so that links cross less."""
    place: dict[str, int] = {}
    for level in sorted(layers):
        layer = layers[level]

        def wish(digest: str, layer: list[str] = layer) -> float:
            rows = [place[e.parent] for e in links if e.child == digest and e.parent in place]
            return sum(rows) / len(rows) if rows else float(layer.index(digest))

        layers[level] = sorted(layer, key=wish)
        place.update({digest: row for row, digest in enumerate(layers[level])})
    return place


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\u2026"
