"""Render the results of a reproduction as one self-contained HTML page, and as a Markdown table."""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from jinja2 import Environment
from markupsafe import Markup

from editr1.evaluation.metrics import Estimate
from editr1.evaluation.report import formats
from editr1.evaluation.report.charts import line_chart
from editr1.evaluation.report.headlines import TRUE_SCORE, ruler
from editr1.evaluation.report.model import Point
from editr1.evaluation.report.render import page_css, page_environment
from editr1.reproduce.claims import CLAIM_TITLES, Outcome
from editr1.reproduce.experiments import editor_name
from editr1.reproduce.results import ComparisonResult, ExperimentResult, Reproduction
from editr1.reproduce.tuning import DEVELOPMENT_SEEDS, TUNED

CURVE_TITLES = {
    "gcpo: pair_win_rate": "pairs won",
    "gcpo: pair_tie_rate": "ties",
    "gcpo: weighted_advantage": "weighted advantage A/T",
    "gcpo: trace_tokens": "tokens per trace",
    "grpo: reward_mean": "mean reward",
    "grpo: reward_std": "standard deviation of the reward",
    "grpo: zero_spread": "fraction of groups without a training signal",
    "grpo: kl": "KL",
}
"""Titles of the training curves on the page, by stage and metric. The GCPO metrics are the group statistics of the paper."""

AXIS_RANGES = {"points": (-25.0, 25.0), "of 10": (-4.0, 4.0), "%": (-100.0, 100.0)}
"""Range of the axis for differences, by unit."""
HISTORY_TITLES = {
    "score": "true score",
    "follow": "follow",
    "keep": "keep",
    "quality": "quality",
    "hacked": "hacked edits",
}
"""Metrics that are plotted against the iterations of the editor's training, with their titles."""


class Claim(NamedTuple):
    """A claim with its comparisons."""

    number: int
    title: str
    parts: list[ComparisonResult]


class Curve(NamedTuple):
    """A chart of one metric during the training of one experiment, averaged over seeds."""

    experiment: str
    name: str
    chart: Markup


def render_page(found: Reproduction) -> str:
    """Render the HTML page. Every estimate is displayed with its sample size and confidence interval, or as "not measured"."""
    return (
        _environment()
        .get_template("reproduction.html.j2")
        .render(
            found=found,
            css=Markup(page_css()),
            true_score=TRUE_SCORE,
            claims=_claims(found),
            verifiers=[experiment for experiment in found.experiments if "half_credit" in experiment.metrics],
            editors=[
                experiment
                for experiment in found.experiments
                if {"before score", "after score"} <= experiment.metrics.keys()
            ],
            averaged=[
                experiment
                for experiment in found.experiments
                if {"rl half_credit", "sft half_credit"} & experiment.metrics.keys()
            ],
            curves=_curves(found.experiments),
            history=_editor_history_charts(found),
            pairs=_pairs_curve(found),
            spans=AXIS_RANGES,
            tuned=TUNED,
            development=DEVELOPMENT_SEEDS,
            tuned_on=sorted(set(found.seeds) & set(DEVELOPMENT_SEEDS)),
        )
    )


def render_table(found: Reproduction) -> str:
    """Render the Markdown table: claim, paper, measured difference, confidence interval, sample size, seeds, and outcome."""
    lines = ["| claim | paper | measured | 95 % interval | n | seeds | outcome |", "|---|---|---|---|---|---|---|"]
    for part in found.comparisons:
        value, interval, n = _words(part)
        lines.append(
            f"| {part.claim}. {part.text} | {part.paper or 'not reported'} | {value} | {interval} | {n} | {len(part.by_seed)} |"
            f" {part.outcome} |"
        )
    seeds = ", ".join(str(seed) for seed in found.seeds)
    lines += [
        "",
        f"Seeds {seeds}; {'; '.join(found.machines)}; total stage time {formats.seconds(found.seconds)}. "
        "Confidence intervals are over "
        f"{'seeds and items' if len(found.seeds) > 1 else 'items'}.",
    ]
    if tuned_on := sorted(set(found.seeds) & set(DEVELOPMENT_SEEDS)):
        lines += [
            "",
            f"For tuning only, not a result: the settings were selected on seed {', '.join(map(str, tuned_on))}.",
        ]
    if found.failed:
        lines += [
            "",
            f"These runs failed, so some comparisons were not measured: {', '.join(sorted(found.failed))}.",
        ]
    return "\n".join(lines) + "\n"


def _words(part: ComparisonResult) -> tuple[str, str, str]:
    if part.difference is None:
        return Outcome.MISSING, "", ""
    scaled, digits = part.difference, 2 if part.scale == 1 else 1
    low, high = (f"{bound * part.scale:+.{digits}f}" for bound in (scaled.low, scaled.high))
    return f"{scaled.value * part.scale:+.{digits}f} {part.unit}", f"{low} to {high}", f"{scaled.n:,}"


def _claims(found: Reproduction) -> list[Claim]:
    ordered = sorted(found.comparisons, key=lambda part: part.claim)
    return [
        Claim(number, CLAIM_TITLES[number], list(parts)) for number, parts in groupby(ordered, lambda part: part.claim)
    ]


def _curves(experiments: list[ExperimentResult]) -> list[Curve]:
    drawn = []
    for experiment in experiments:
        for name, title in CURVE_TITLES.items():
            points = _mean_curve(list(experiment.curves.get(name, {}).values()))
            if points:
                drawn.append(Curve(experiment.name, title, line_chart(title, points)))
    return drawn


def _editor_history_charts(found: Reproduction) -> list[Curve]:
    """Plot the ground-truth metrics of the editors against the RL iteration. Iteration 0 is before RL.

    The editors trained with the SFT-RRM and with the RL-RRM are drawn in the same chart. Only the fraction of hacked
    edits has one chart per verifier, because it depends on the scores of the verifier.
    """
    histories = {"RL-RRM": _editor_histories(found, "rl"), "SFT-RRM": _editor_histories(found, "sft")}
    drawn = []
    for name, words in HISTORY_TITLES.items():
        measured = [(title, history[name]) for title, history in histories.items() if name in history]
        if len(measured) == len(histories) and name != "hacked":
            (first, points), (second, other) = measured
            chart = line_chart(f"{words} with the {first}", points, "iteration", (f"with the {second}", other))
            drawn.append(Curve("", words, chart))
        else:
            for title, points in measured:
                drawn.append(Curve(title, words, line_chart(f"{words} with the {title}", points, "iteration")))
    return drawn


def _editor_histories(found: Reproduction, verifier: str) -> dict[str, list[Point]]:
    experiments, budget = {experiment.name: experiment for experiment in found.experiments}, found.budget
    steps = [(n, experiments.get(editor_name(verifier, n, budget))) for n in (*budget.editor_curve, budget.iterations)]
    histories = {}
    for name in HISTORY_TITLES:
        at = {float(n): experiment.metrics.get(f"after {name}") for n, experiment in steps if experiment is not None}
        start = [experiment.metrics.get(f"before {name}") for _, experiment in steps if experiment is not None]
        at |= {0.0: next((metric for metric in start if metric is not None), None)}
        points = sorted((n, metric.value) for n, metric in at.items() if metric is not None)
        if len(points) > 1:
            histories[name] = points
    return histories


def _pairs_curve(found: Reproduction) -> Markup | None:
    """Plot the accuracy after GCPO against the number of training pairs; 0 pairs means SFT only."""
    experiments, budget = {experiment.name: experiment for experiment in found.experiments}, found.budget
    names = {0: "tv", budget.pairs: "gcpo"} | {n: f"gcpo-{n}" for n in budget.few_pairs}
    measured = {n: experiments[name].metrics.get("half_credit") for n, name in names.items() if name in experiments}
    points = sorted((float(n), 100 * metric.value) for n, metric in measured.items() if metric is not None)
    return line_chart("accuracy, half credit (%)", points, "pairs") if len(points) > 2 else None


def _mean_curve(curves: list[tuple[Point, ...]]) -> list[Point]:
    by_step: dict[float, list[float]] = {}
    for curve in curves:
        for step, value in curve:
            by_step.setdefault(step, []).append(value)
    return [(step, sum(values) / len(values)) for step, values in sorted(by_step.items())]


def _interval(value: Estimate | None, scale: float = 100.0, digits: int = 1) -> str:
    """Format an estimate with its confidence interval and its sample size."""
    if value is None:
        return formats.NOT_MEASURED
    low, high = (f"{bound * scale:.{digits}f}" for bound in (value.low, value.high))
    return f"{value.value * scale:.{digits}f} ({low} to {high}, {formats.count(value)})"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = page_environment("editr1.reproduce")
    environment.globals.update(ruler=ruler)
    environment.filters.update(words=_words, interval=_interval, seconds=formats.seconds)
    return environment
