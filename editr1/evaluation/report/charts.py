"""Draw the charts of the report: curves as inline SVG, and the bars of the timeline.

Colours come from CSS classes of the page. All text is escaped by :class:`markupsafe.Markup`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from editr1.evaluation.report.formats import number, scientific, seconds
from editr1.evaluation.report.model import Point, TimeSpan

_WIDTH, _HEIGHT = 320, 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 22, 30
_MAX_POINTS = 1000
_SMOOTH_FROM = 30


class Bar(NamedTuple):
    """A bar of the timeline. ``left`` and ``width`` are its position and length in percent of the run's duration.

    ``title`` is its tooltip. ``ok`` is False if the stage or the part of a stage has failed.
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

    If a curve has at least 30 values and fluctuates, it is drawn as a thin line, and its running mean is drawn on top
    with a label. If a curve has more than 1,000 points, only the lowest and the highest value of each section are
    drawn. Values that are not finite cause a gap in the curve. If ``points`` has no finite value, return an empty
    string.

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
    axes = _Axes.around([*first, *second])
    digits = _digits(axes.y_ticks) + 1
    parts = axes.draw()
    if second:
        parts.append(_path(_thinned(second), axes, "curve other"))
    smooth = len(first) >= _SMOOTH_FROM and _fluctuates(finite)
    parts.append(_path(_thinned(first), axes, "raw" if smooth else "curve"))
    if smooth:
        half = max(2, len(first) // 24)
        parts.append(_path(_thinned(_running_mean(first, half)), axes, "curve"))
        parts.append(_legend(f"thick: running mean of {2 * half + 1}"))
    parts += _tooltips(first, axes, x_label)
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
    """Return about 40 invisible circles along a curve.

    The tooltip of each circle shows the value of the curve at that position.
    """
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


def constant_value(points: Sequence[Point]) -> float | None:
    """Return the value of a curve that is constant, or None.

    A curve is constant if it has at least two finite values and all of its finite values are equal.
    """
    values = [y for _, y in points if math.isfinite(y)]
    return values[0] if len(values) > 1 and len(set(values)) == 1 else None


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


def _bar(item: TimeSpan, start: float, duration: float) -> Bar:
    length = item.end - item.start
    title = f"{item.name}: {seconds(length)}, started {seconds(item.start - start)} after the start of the timeline" + (
        "" if item.ok else ", failed"
    )
    return Bar(100 * (item.start - start) / duration, 100 * length / duration, title, item.level, item.ok)


def _covered(items: Sequence[TimeSpan]) -> float:
    """Return the total time in seconds covered by the spans. Time covered by several spans counts once."""
    total, reached = 0.0, -math.inf
    for item in sorted(items, key=lambda s: s.start):
        total += max(0.0, item.end - max(item.start, reached))
        reached = max(reached, item.end)
    return total


def _fluctuates(points: Sequence[Point]) -> bool:
    """Return True if the curve changes direction at more than a tenth of its points, unlike learning rates and running counts."""
    steps = [b - a for (_, a), (_, b) in pairwise(points) if b != a]
    return sum(a * b < 0 for a, b in pairwise(steps)) > len(points) / 10


def _legend(text: str) -> Markup:
    return Markup('<text class="tick" x="{}" y="11" text-anchor="end">{}</text>').format(_WIDTH - _RIGHT, text)


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Return at most 1,000 of the points, without changing them: the lowest and the highest point of each section, and the last point."""
    run = math.ceil(2 * len(points) / (_MAX_POINTS - 1))
    if len(points) <= _MAX_POINTS:
        return list(points)
    found: list[Point] = []
    for start in range(0, len(points), run):
        members = [point for point in points[start : start + run] if math.isfinite(point[1])] or [points[start]]
        found += sorted({min(members, key=lambda p: p[1]), max(members, key=lambda p: p[1])})
    return found if found[-1] == points[-1] else [*found, points[-1]]


def _running_mean(points: Sequence[Point], half: int) -> list[Point]:
    """Return the mean of each value and its neighbours: up to ``half`` finite values on each side."""
    total, count = [0.0], [0]
    for _, y in points:
        finite = math.isfinite(y)
        total.append(total[-1] + (y if finite else 0.0))
        count.append(count[-1] + finite)
    found: list[Point] = []
    for i, (x, y) in enumerate(points):
        low, high = max(0, i - half), min(len(points), i + half + 1)
        near = count[high] - count[low]
        found.append((x, (total[high] - total[low]) / near if near and math.isfinite(y) else math.nan))
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
