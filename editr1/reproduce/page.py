"""A reproduction as one HTML page that loads nothing, and as the table for the README."""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from jinja2 import Environment
from markupsafe import Markup

from editr1.evaluation.metrics import Estimate
from editr1.evaluation.report import formats
from editr1.evaluation.report.charts import line_chart
from editr1.evaluation.report.headlines import ruler
from editr1.evaluation.report.model import Point
from editr1.evaluation.report.render import page_css, page_environment
from editr1.reproduce.claims import TITLES, Outcome
from editr1.reproduce.development import DEVELOPMENT_SEEDS, TRIED
from editr1.reproduce.experiments import editor_name
from editr1.reproduce.results import CellFound, ContrastFound, Reproduction

CURVES = {
    "gcpo: pair_win_rate": "pairs won",
    "gcpo: pair_tie_rate": "ties",
    "gcpo: weighted_advantage": "weighted advantage A/L",
    "gcpo: trace_tokens": "tokens a trace",
    "grpo: reward_mean": "mean reward",
    "grpo: reward_std": "spread of the reward",
    "grpo: zero_spread": "groups without spread",
    "grpo: kl": "KL",
}
"""The paper's group statistics, and those of the editor's training."""

SPANS = {"points": (-25.0, 25.0), "of 10": (-4.0, 4.0), "%": (-100.0, 100.0)}
"""Ends of the ruler on which a difference is drawn, by its unit."""
COURSE = {"score": "true score", "follow": "follow", "keep": "keep", "quality": "quality", "hacked": "hacked edits"}
"""What is drawn over the course of the editor's training."""


class Claim(NamedTuple):
    """A claim with its parts."""

    number: int
    title: str
    parts: list[ContrastFound]


class Curve(NamedTuple):
    """The mean over seeds of one figure of one cell's training."""

    cell: str
    name: str
    chart: Markup


def render_page(found: Reproduction) -> str:
    """The page. Every figure has its n and interval; what was not measured says so."""
    return (
        _environment()
        .get_template("reproduction.html.j2")
        .render(
            found=found,
            css=Markup(page_css()),
            claims=_claims(found),
            verifiers=[cell for cell in found.cells if "half_credit" in cell.figures],
            editors=[cell for cell in found.cells if {"before score", "after score"} <= cell.figures.keys()],
            averaged=[cell for cell in found.cells if {"rl half_credit", "sft half_credit"} & cell.figures.keys()],
            curves=_curves(found.cells),
            course=_course(found),
            pairs=_pairs_curve(found),
            spans=SPANS,
            tried=TRIED,
            development=DEVELOPMENT_SEEDS,
            looked_at=sorted(set(found.seeds) & set(DEVELOPMENT_SEEDS)),
        )
    )


def render_table(found: Reproduction) -> str:
    """The table as Markdown: claim, paper, ours, interval, n, and whether it holds."""
    lines = ["| claim | paper | here | 95 % interval | n | seeds | |", "|---|---|---|---|---|---|---|"]
    for part in found.contrasts:
        value, interval, n = _words(part)
        lines.append(
            f"| {part.claim}. {part.text} | {part.paper or 'no figure'} | {value} | {interval} | {n} | {len(part.by_seed)} |"
            f" {part.outcome} |"
        )
    seeds = ", ".join(str(seed) for seed in found.seeds)
    lines += [
        "",
        f"Seeds {seeds}; {'; '.join(found.machines)}; {formats.seconds(found.seconds)} of stages. Intervals: over "
        f"{'seeds and items' if len(found.seeds) > 1 else 'items'}.",
    ]
    if looked_at := sorted(set(found.seeds) & set(DEVELOPMENT_SEEDS)):
        lines += ["", f"No result: settings were chosen on seed {', '.join(map(str, looked_at))}."]
    if found.failed:
        lines += ["", f"Failed, so that what builds on it was not measured: {', '.join(sorted(found.failed))}."]
    return "\n".join(lines) + "\n"


def _words(part: ContrastFound) -> tuple[str, str, str]:
    if part.difference is None:
        return Outcome.MISSING, "", ""
    scaled, digits = part.difference, 2 if part.scale == 1 else 1
    low, high = (f"{bound * part.scale:+.{digits}f}" for bound in (scaled.low, scaled.high))
    return f"{scaled.value * part.scale:+.{digits}f} {part.unit}", f"{low} to {high}", f"{scaled.n:,}"


def _claims(found: Reproduction) -> list[Claim]:
    ordered = sorted(found.contrasts, key=lambda part: part.claim)
    return [Claim(number, TITLES[number], list(parts)) for number, parts in groupby(ordered, lambda part: part.claim)]


def _curves(cells: list[CellFound]) -> list[Curve]:
    drawn = []
    for cell in cells:
        for name, title in CURVES.items():
            points = _mean_curve(list(cell.curves.get(name, {}).values()))
            if points:
                drawn.append(Curve(cell.name, title, line_chart(title, points)))
    return drawn


def _course(found: Reproduction) -> list[Curve]:
    """The editor's figures on the truth over the iterations of its training, from before it to its end.

    What the truth alone says of both editors shares its axes; hacked edits have two rulers, and so two charts.
    """
    courses = {"RL-RRM": _courses(found, "rl"), "SFT-RRM": _courses(found, "sft")}
    drawn = []
    for name, words in COURSE.items():
        measured = [(title, course[name]) for title, course in courses.items() if name in course]
        if len(measured) == len(courses) and name != "hacked":
            (first, points), (second, other) = measured
            chart = line_chart(f"{words} on the {first}", points, "iteration", (f"on the {second}", other))
            drawn.append(Curve("", words, chart))
        else:
            for title, points in measured:
                drawn.append(Curve(title, words, line_chart(f"{words} on the {title}", points, "iteration")))
    return drawn


def _courses(found: Reproduction, verifier: str) -> dict[str, list[Point]]:
    cells, budget = {cell.name: cell for cell in found.cells}, found.budget
    steps = [(n, cells.get(editor_name(verifier, n, budget))) for n in (*budget.editor_curve, budget.iterations)]
    courses = {}
    for name in COURSE:
        at = {float(n): cell.figures.get(f"after {name}") for n, cell in steps if cell is not None}
        start = [cell.figures.get(f"before {name}") for _, cell in steps if cell is not None]
        at |= {0.0: next((figure for figure in start if figure is not None), None)}
        points = sorted((n, figure.value) for n, figure in at.items() if figure is not None)
        if len(points) > 1:
            courses[name] = points
    return courses


def _pairs_curve(found: Reproduction) -> Markup | None:
    """Accuracy after GCPO on so many pairs; 0 is SFT alone."""
    cells, budget = {cell.name: cell for cell in found.cells}, found.budget
    names = {0: "tv", budget.pairs: "gcpo"} | {n: f"gcpo-{n}" for n in budget.few_pairs}
    measured = {n: cells[name].figures.get("half_credit") for n, name in names.items() if name in cells}
    points = sorted((float(n), 100 * figure.value) for n, figure in measured.items() if figure is not None)
    return line_chart("right, ties half (%)", points, "pairs") if len(points) > 2 else None


def _mean_curve(curves: list[tuple[Point, ...]]) -> list[Point]:
    by_step: dict[float, list[float]] = {}
    for curve in curves:
        for step, value in curve:
            by_step.setdefault(step, []).append(value)
    return [(step, sum(values) / len(values)) for step, values in sorted(by_step.items())]


def _interval(value: Estimate | None, scale: float = 100.0, digits: int = 1) -> str:
    if value is None:
        return formats.NOT_MEASURED
    low, high = (f"{bound * scale:.{digits}f}" for bound in (value.low, value.high))
    return f"{value.value * scale:.{digits}f} ({low} to {high})"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = page_environment("editr1.reproduce")
    environment.globals.update(ruler=ruler)
    environment.filters.update(words=_words, interval=_interval, seconds=formats.seconds)
    return environment
