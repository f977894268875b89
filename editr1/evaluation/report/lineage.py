"""Draw the lineage graph of the report as inline SVG.

Artifacts are boxes, and edges lead to the artifacts that were made from them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup

from editr1.evaluation.report.formats import short
from editr1.evaluation.report.model import LineageEdge, LineageNode

BOX_WIDTH, BOX_HEIGHT = 148, 42
_GAP_X, _GAP_Y = 56, 18
_LANE = 4
_LANE_GAP = 12
_SWEEPS = 8

Place = str | tuple[int, int]
"""An entry of a column: the digest of an artifact, or (edge number, column) for an edge that passes through the column."""


@dataclass
class _Layout:
    """Columns of the graph. ``routes`` contains the places of each edge from its parent to its child."""

    columns: dict[int, list[Place]]
    routes: list[list[Place]]
    y: dict[Place, float] = field(default_factory=dict)

    def x(self, column: int) -> float:
        return 2.0 + column * (BOX_WIDTH + _GAP_X)


def lineage_chart(nodes: Sequence[LineageNode], edges: Sequence[LineageEdge]) -> Markup:
    """Draw the lineage graph of artifacts as SVG. Every artifact is to the right of its parents.

    An edge that spans several columns passes between the boxes of the columns in between, and never behind a box. An
    edge is not drawn if its parent or its child is not in ``nodes``.
    """
    if not nodes:
        return Markup("")
    known = {node.digest for node in nodes}
    links = [e for e in edges if e.parent in known and e.child in known and e.parent != e.child]
    depth = _depths([node.digest for node in nodes], links)
    links = [link for link in links if depth[link.parent] < depth[link.child]]
    layout = _layout([node.digest for node in nodes], links, depth)
    height = max(layout.y[place] + _size(place) for places in layout.columns.values() for place in places) + 2
    width = layout.x(max(layout.columns)) + BOX_WIDTH + 2
    parts = [_edge(layout, route, depth) for route in layout.routes]
    parts += [_box(node, layout.x(depth[node.digest]), layout.y[node.digest]) for node in nodes]
    return Markup(
        '<svg class="lineage" viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}" role="img" aria-label="{} artifacts and {} links; '
        'the table below has the same content">{}</svg>'
    ).format(width, height, width, len(nodes), len(links), Markup("").join(parts))


def _box(node: LineageNode, x: float, y: float) -> Markup:
    return Markup(
        '<g><title>{} {}</title><rect class="node" x="{:.1f}" y="{:.1f}" width="{}" height="{}" rx="6"/>'
        '<text class="node-label" x="{:.1f}" y="{:.1f}">{}</text>'
        '<text class="node-digest" x="{:.1f}" y="{:.1f}">{}</text></g>'
    ).format(
        node.label, node.digest, x, y, BOX_WIDTH, BOX_HEIGHT,
        x + 10, y + 17, _clipped(node.label, 20), x + 10, y + 33, short(node.digest),
    )  # fmt: skip


def _edge(layout: _Layout, route: Sequence[Place], depth: Mapping[str, int]) -> Markup:
    """Draw an edge: curves in the gaps between columns, and straight lines across the columns that it passes."""
    start, end = route[0], route[-1]
    assert isinstance(start, str) and isinstance(end, str)
    x, y = layout.x(depth[start]) + BOX_WIDTH, layout.y[start] + BOX_HEIGHT / 2
    steps = [f"M{x:.1f},{y:.1f}"]
    for offset, place in enumerate(route[1:], start=1):
        left, middle = layout.x(depth[start] + offset), layout.y[place] + _size(place) / 2
        bend = (left - x) / 2
        steps.append(f"C{x + bend:.1f},{y:.1f} {left - bend:.1f},{middle:.1f} {left:.1f},{middle:.1f}")
        x, y = left, middle
        if place != end:
            x += BOX_WIDTH
            steps.append(f"L{x:.1f},{y:.1f}")
    return Markup('<path class="edge" d="{}"/>').format(" ".join(steps))


def _layout(digests: Sequence[str], links: Sequence[LineageEdge], depth: Mapping[str, int]) -> _Layout:
    columns: dict[int, list[Place]] = defaultdict(list)
    for digest in digests:
        columns[depth[digest]].append(digest)
    routes: list[list[Place]] = []
    for number, link in enumerate(links):
        between: list[Place] = [(number, column) for column in range(depth[link.parent] + 1, depth[link.child])]
        for column, place in enumerate(between, start=depth[link.parent] + 1):
            columns[column].append(place)
        routes.append([link.parent, *between, link.child])
    layout = _Layout(dict(sorted(columns.items())), routes)
    _order(layout)
    heights = {column: sum(map(_height, places)) for column, places in layout.columns.items()}
    for column, places in layout.columns.items():
        at = 2 + (max(heights.values()) - heights[column]) / 2
        for place in places:
            layout.y[place] = at + (_height(place) - _size(place)) / 2
            at += _height(place)
    return layout


def _order(layout: _Layout) -> None:
    """Sort each column by the mean position of its neighbours, alternately to the left and right, to avoid crossings."""
    before: dict[Place, list[Place]] = defaultdict(list)
    after: dict[Place, list[Place]] = defaultdict(list)
    for route in layout.routes:
        for first, second in pairwise(route):
            after[first].append(second)
            before[second].append(first)
    best, fewest = {c: list(p) for c, p in layout.columns.items()}, _crossings(layout, after)
    for sweep in range(_SWEEPS):
        neighbours, columns = (before, list(layout.columns)) if sweep % 2 == 0 else (after, list(layout.columns)[::-1])
        for column in columns:
            rows = {place: row / len(places) for places in layout.columns.values() for row, place in enumerate(places)}

            def mean_row(
                place: Place, rows: dict[Place, float] = rows, near: dict[Place, list[Place]] = neighbours
            ) -> float:
                found = [rows[other] for other in near[place]]
                return sum(found) / len(found) if found else rows[place]

            layout.columns[column] = sorted(layout.columns[column], key=mean_row)
        crossings = _crossings(layout, after)
        if crossings < fewest:
            best, fewest = {c: list(p) for c, p in layout.columns.items()}, crossings
    layout.columns = best


def _crossings(layout: _Layout, after: Mapping[Place, Sequence[Place]]) -> int:
    rows = {place: row for places in layout.columns.values() for row, place in enumerate(places)}
    total = 0
    for places in layout.columns.values():
        ends = [(rows[place], rows[other]) for place in places for other in after.get(place, ())]
        total += sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(ends) for c, d in ends[i + 1 :])
    return total


def _size(place: Place) -> int:
    return BOX_HEIGHT if isinstance(place, str) else _LANE


def _height(place: Place) -> int:
    return _size(place) + (_GAP_Y if isinstance(place, str) else _LANE_GAP)


def _depths(digests: Sequence[str], links: Sequence[LineageEdge]) -> dict[str, int]:
    """Return the column of each artifact: the number of links on the longest path from an artifact without parents.

    An artifact store contains no cycles. If the input contains a cycle nevertheless, no depth exceeds the number of artifacts.
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


def _clipped(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else text[: max_length - 1] + "\u2026"
