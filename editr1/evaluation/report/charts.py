"""Charts of the report: curves and the lineage graph as inline SVG, and the bars of the timeline.

Colours come from CSS classes of the page. All text is escaped by :class:`markupsafe.Markup`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from editr1.evaluation.report.formats import number, scientific, seconds, short
from editr1.evaluation.report.model import LineageEdge, LineageNode, Point, TimeSpan

_WIDTH, _HEIGHT = 320, 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 30
_MAX_POINTS = 240
_SMOOTH_FROM = 30


class Bar(NamedTuple):
    """A bar of the timeline. ``left`` and ``width`` are its position and length in percent of the run's duration.

    ``title`` is its tooltip. ``ok`` is False if the stage or part that the bar shows has failed.
    """

    left: float
    width: float
    title: str
    level: int
    ok: bool


class Track(NamedTuple):
    """A row of the timeline: the bars of one stage and its total duration."""

    stage: str
    duration: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class _Axes:
    """Axes of a chart: the ranges of the data, the ticks, and the mapping from data coordinates to SVG positions."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    x_ticks: list[float]
    y_ticks: list[float]

    @classmethod
    def around(cls, points: Sequence[Point]) -> _Axes:
        xs, ys = [x for x, _ in points], [y for _, y in points if math.isfinite(y)]
        x_ticks, y_ticks = nice_ticks(min(xs), max(xs), 4), nice_ticks(min(ys), max(ys), 4)
        y_low, y_high = min(y_ticks[0], *ys), max(y_ticks[-1], *ys)
        return cls(min(xs), max(xs), y_low, y_high, x_ticks, y_ticks)

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x_low) / ((self.x_high - self.x_low) or 1.0)
        up = (y - self.y_low) / ((self.y_high - self.y_low) or 1.0)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    def draw(self) -> list[Markup]:
        """Return the SVG elements of the grid lines and tick labels."""
        parts: list[Markup] = []
        for tick in self.y_ticks:
            _, y = self.place(self.x_low, tick)
            parts.append(
                Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                    _LEFT, _WIDTH - _RIGHT, y, y
                )
            )
            parts.append(
                Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                    _LEFT - 6, y + 3.5, _formatted(tick, _digits(self.y_ticks))
                )
            )
        for tick in self.x_ticks:
            if self.x_low <= tick <= self.x_high:
                x, _ = self.place(tick, self.y_low)
                parts.append(
                    Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                        x, _HEIGHT - _BOTTOM + 15, number(tick, _digits(self.x_ticks))
                    )
                )
        return parts


def line_chart(
    name: str, points: Sequence[Point], x_label: str = "step", other: tuple[str, Sequence[Point]] | None = None
) -> Markup:
    """Draw a curve, or two curves on the same axes, as SVG.

    With 30 or more points, the values are drawn as a thin line, with their running mean on top. Values that are not
    finite leave a gap in the curve. If ``points`` has no finite value, return an empty string.

    Args:
        name: Name of the curve.
        points: Points (x, y), sorted by x.
        x_label: Label of the x axis.
        other: Name and points of a second curve on the same axes.
    """
    first, second = _with_finite_x(points), _with_finite_x(other[1]) if other else []
    finite = [(x, y) for x, y in first if math.isfinite(y)]
    if not finite:
        return Markup("")
    drawn = _reduced(first)
    axes = _Axes.around([*first, *second])
    digits = _digits(axes.y_ticks) + 1
    parts = axes.draw()
    if second:
        parts.append(_path(_reduced(second), axes, "curve other"))
    smooth = len(drawn) >= _SMOOTH_FROM
    parts.append(_path(drawn, axes, "raw" if smooth else "curve"))
    if smooth:
        parts.append(_path(_running_mean(drawn), axes, "curve"))
    parts += _tooltips(drawn, axes, x_label)
    last_x, last_y = finite[-1]
    label = (
        f"{name} by {x_label}: from {_formatted(finite[0][1], digits)} to {_formatted(last_y, digits)} "
        f"at {x_label} {last_x:g}"
    )
    if other and second:
        label += f"; {other[0]}: from {_formatted(second[0][1], digits)} to {_formatted(second[-1][1], digits)}"
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, label, Markup("").join(parts)
    )


def _tooltips(points: Sequence[Point], axes: _Axes, x_label: str) -> list[Markup]:
    """Return about 40 invisible circles along a curve. The tooltip of a circle gives the value of the curve there."""
    found: list[Markup] = []
    for x, y in points[:: max(1, len(points) // 40)]:
        if math.isfinite(y):
            cx, cy = axes.place(x, y)
            found.append(
                Markup('<circle class="hover" cx="{:.1f}" cy="{:.1f}" r="7"><title>{} {}: {}</title></circle>').format(
                    cx, cy, x_label, number(x, 0), _formatted(y, _digits(axes.y_ticks) + 1)
                )
            )
    return found


def _with_finite_x(points: Sequence[Point]) -> list[Point]:
    return [(float(x), float(y)) for x, y in points if math.isfinite(x)]


def constant_curves(curves: Mapping[str, Sequence[Point]]) -> dict[str, float]:
    """Return the value of each constant curve, by name.

    A curve is constant if it has at least two finite values and all of its finite values are equal.
    """
    values = {name: [y for _, y in points if math.isfinite(y)] for name, points in curves.items()}
    return {name: found[0] for name, found in values.items() if len(found) > 1 and len(set(found)) == 1}


def nice_ticks(low: float, high: float, max_ticks: int) -> list[float]:
    """Return at most ``max_ticks`` + 2 evenly spaced round values that cover [low, high].

    The difference between neighbouring values is 1, 2 or 5 times a power of ten.
    """
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / max_ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1.0, 2.0, 5.0, 10.0) if power * factor >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def timeline_tracks(spans: Sequence[TimeSpan]) -> tuple[tuple[Track, ...], tuple[tuple[float, str], ...]]:
    """Return the rows of the timeline, sorted by start time, and the ticks of its time axis.

    A tick consists of its position, in percent of the run's duration, and its label.
    """
    if not spans:
        return (), ()
    start, end = min(s.start for s in spans), max(s.end for s in spans)
    duration = (end - start) or 1.0
    rows: dict[str, list[TimeSpan]] = defaultdict(list)
    for item in sorted(spans, key=lambda s: (s.start, s.level)):
        rows[item.stage].append(item)
    found = tuple(
        Track(stage, seconds(_covered(items)), tuple(_bar(item, start, duration) for item in items))
        for stage, items in rows.items()
    )
    ticks = [t for t in nice_ticks(0.0, duration / 60.0 if duration >= 120 else duration, 5) if t >= 0]
    unit, factor = (" min", 60.0) if duration >= 120 else (" s", 1.0)
    axis = tuple((100 * t * factor / duration, f"{t:g}{unit}") for t in ticks if t * factor <= duration * 1.0001)
    return found, axis


def lineage_chart(nodes: Sequence[LineageNode], edges: Sequence[LineageEdge]) -> Markup:
    """Draw the lineage graph of artifacts as SVG. Every artifact is to the right of its parents.

    An edge is not drawn if its parent or child is not one of ``nodes``.
    """
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
        'the table below has the same content">{}</svg>'
    ).format(width, height, width, len(nodes), len(links), Markup("").join(parts))


def _bar(item: TimeSpan, start: float, duration: float) -> Bar:
    length = item.end - item.start
    title = f"{item.name}: {seconds(length)}, started {seconds(item.start - start)} after the start of the timeline" + (
        "" if item.ok else ", failed"
    )
    return Bar(100 * (item.start - start) / duration, 100 * length / duration, title, item.level, item.ok)


def _covered(items: Sequence[TimeSpan]) -> float:
    """Return the total time in seconds that the spans cover. Time that several spans cover counts once."""
    total, reached = 0.0, -math.inf
    for item in sorted(items, key=lambda s: s.start):
        total += max(0.0, item.end - max(item.start, reached))
        reached = max(reached, item.end)
    return total


def _reduced(points: Sequence[Point]) -> list[Point]:
    """Reduce a curve to at most 240 points by averaging neighbouring points."""
    run = math.ceil(len(points) / _MAX_POINTS)
    if run <= 1:
        return list(points)
    found: list[Point] = []
    for start in range(0, len(points), run):
        members = points[start : start + run]
        ys = [y for _, y in members if math.isfinite(y)]
        found.append((sum(x for x, _ in members) / len(members), sum(ys) / len(ys) if ys else math.nan))
    return found


def _running_mean(points: Sequence[Point]) -> list[Point]:
    half = max(2, len(points) // 24)
    found: list[Point] = []
    for i, (x, y) in enumerate(points):
        near = [v for _, v in points[max(0, i - half) : i + half + 1] if math.isfinite(v)]
        found.append((x, sum(near) / len(near) if near and math.isfinite(y) else math.nan))
    return found


def _path(points: Sequence[Point], axes: _Axes, css: str) -> Markup:
    steps: list[str] = []
    pen_down = False
    for x, y in points:
        if math.isfinite(y):
            px, py = axes.place(x, y)
            steps.append(f"{'L' if pen_down else 'M'}{px:.1f},{py:.1f}")
        pen_down = math.isfinite(y)
    if len(steps) == 1:
        steps.append("h.01")
    return Markup('<path class="{}" d="{}"/>').format(css, " ".join(steps))


def _digits(ticks: Sequence[float]) -> int:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _formatted(value: float, digits: int) -> str:
    """Format ``value`` with ``digits`` decimals, or in scientific notation if ``digits`` is above 6."""
    if digits <= 6:
        return number(value, digits)
    if value == 0 or not math.isfinite(value):
        return number(value, 0)
    return scientific(value, max(0, digits + math.floor(math.log10(abs(value)))))


def _depths(digests: Sequence[str], links: Sequence[LineageEdge]) -> dict[str, int]:
    """Return the depth of each artifact in the lineage graph.

    The depth is the number of links on the longest path from an artifact without parents. An artifact store contains no
    cycles. If the input contains a cycle nevertheless, no depth exceeds the number of artifacts.
    """
    depth = dict.fromkeys(digests, 0)
    for _ in range(len(digests)):
        changed = False
        for link in links:
            if depth[link.child] < depth[link.parent] + 1 <= len(digests):
                depth[link.child] = depth[link.parent] + 1
                changed = True
        if not changed:
            break
    return depth


def _placed(layers: dict[int, list[str]], links: Sequence[LineageEdge]) -> dict[str, int]:
    """Return the row of each artifact in its layer, which contains all artifacts of the same depth.

    Each layer is sorted in place by the mean row of the artifacts' parents.
    """
    place: dict[str, int] = {}
    for level in sorted(layers):
        layer = layers[level]

        def mean_parent_row(digest: str, layer: list[str] = layer) -> float:
            rows = [place[e.parent] for e in links if e.child == digest and e.parent in place]
            return sum(rows) / len(rows) if rows else float(layer.index(digest))

        layers[level] = sorted(layer, key=mean_parent_row)
        place.update({digest: row for row, digest in enumerate(layers[level])})
    return place


def _clipped(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else text[: max_length - 1] + "\u2026"
