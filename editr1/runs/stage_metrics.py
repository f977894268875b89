"""Prepare the metrics and curves of a stage for the report: title, unit, order, and the items over which a value was averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from editr1.data.types import FailureCause
from editr1.evaluation.report.formats import number
from editr1.evaluation.report.model import Point, StageCurve, StageMetric
from editr1.runs.kinds import Kind
from editr1.runs.record import StageRecord
from editr1.telemetry import progress_lines

Curves = Mapping[tuple[str, str], Sequence[Point]]
"""Points (completed steps, value) by phase and metric."""


class Shown(NamedTuple):
    """How a metric is shown: its title, its unit, and the factor by which its values are multiplied."""

    title: str
    unit: str = ""
    factor: float = 1.0
    digits: int = 3


def _percent(title: str) -> Shown:
    return Shown(title, " %", 100.0, 1)


_OPTIMISATION: Final = {
    "loss": Shown("loss", digits=4),
    "entropy": Shown("entropy", " nats per token"),
    "clip_fraction": _percent("clipped likelihood ratios"),
    "log_ratio": Shown("mean |log likelihood ratio|"),
    "log_ratio_max": Shown("largest |log likelihood ratio|"),
    "ratio_distance": Shown("mean |likelihood ratio \u2212 1|"),
    "kl": Shown("KL divergence", " nats per token"),
    "grad_norm": Shown("gradient norm"),
    "learning_rate": Shown("learning rate", digits=6),
    "tokens_per_second": Shown("tokens per second", digits=0),
}
_FAILURES: Final = {
    FailureCause.INVALID: "invalid edit",
    FailureCause.UNPARSED: "no trace could be parsed",
    FailureCause.OVERLOADED: "service overloaded",
    FailureCause.DEADLINE: "not in time",
    FailureCause.ENGINE: "error of the engine",
    FailureCause.UNREACHABLE: "service not reachable",
    FailureCause.REFUSED: "refused by the service",
    FailureCause.BAD_RESPONSE: "bad response of the service",
}
METRICS: Final[Mapping[str, Mapping[str, Shown]]] = {
    Kind.CURATE: {
        "rows": Shown("SFT rows"),
        "cases": Shown("cases with principles"),
        "agreement": _percent("agreement of the rows with the verifying model"),
        "quadruples": Shown("edits"),
        "traces": Shown("traces written"),
        "trace_parse_rate": _percent("traces that could be parsed"),
        "requests": Shown("requests to labelling models"),
        "failed": Shown("failed items"),
        "cached": Shown("requests answered from the cache"),
        "retries": Shown("retries"),
        "prompt_tokens": Shown("prompt tokens"),
        "completion_tokens": Shown("completion tokens"),
        "cost": Shown("cost at the configured prices", digits=2),
    },
    Kind.SFT: {
        "loss": Shown("loss", " nats per token", digits=4),
        "token_accuracy": _percent("tokens predicted correctly"),
        "steps": Shown("steps"),
        "best_of_n_rows": Shown("rows"),
        **{name: shown for name, shown in _OPTIMISATION.items() if name != "loss"},
    },
    Kind.GCPO: {
        "pair_half_credit": _percent("comparisons won (a tie counts half)"),
        "pair_win_rate": _percent("comparisons won"),
        "pair_tie_rate": _percent("comparisons tied"),
        "no_signal_rate": _percent("pairs without a training signal"),
        "score_gap": Shown("score of winners minus losers", " of 10", digits=2),
        "score_mean": Shown("mean score", " of 10", digits=2),
        "parse_rate": _percent("traces that could be parsed"),
        "truncated_rate": _percent("traces that reached the length limit"),
        "trace_tokens": Shown("length of a trace", " tokens", digits=1),
        "steps": Shown("steps"),
        "pairs": Shown("training pairs with a preference"),
        "pairs_same": Shown("pairs without a preference, not used"),
        "positive_rate_follow": _percent("answers yes, follow"),
        "positive_rate_keep": _percent("answers yes, keep"),
        "positive_rate_quality": _percent("answers yes, quality"),
        "weighted_advantage": Shown("advantage, weighted by length"),
        **_OPTIMISATION,
    },
    Kind.GRPO: {
        "reward_first": Shown("mean reward at the start", " of 10", digits=2),
        "reward_last": Shown("mean reward at the end", " of 10", digits=2),
        "reward_mean": Shown("mean reward", " of 10", digits=2),
        "failed": Shown("scores that failed"),
        **{f"failed_{cause}": Shown(f"scores that failed, {_FAILURES[cause]}") for cause in FailureCause},
        "zero_spread": _percent("groups without a training signal"),
        "reward_std": Shown("standard deviation of the reward", " of 10", digits=2),
        "iterations": Shown("iterations"),
        "seconds": Shown("time in iterations", " s", digits=0),
        "clip_frac": _percent("clipped likelihood ratios"),
        "ratio": Shown("mean likelihood ratio"),
        "ratio_error_first": Shown("error of the first likelihood ratio"),
        "kl": Shown("KL divergence"),
        "grad_norm": Shown("gradient norm"),
    },
}
"""The metrics of each kind of stage, with the most important ones first."""

_X_LABELS: Final = {Kind.CURATE: "item", Kind.GRPO: "iteration"}
_TAIL: Final = 0.1
_ENDS: Final = 5


def phase_curves(lines: bytes | None) -> dict[tuple[str, str], tuple[Point, ...]]:
    """Return the points (completed steps, value) of each metric in a stage's progress lines, by phase and metric.

    Metrics with fewer than three points in a phase are omitted.
    """
    points: dict[tuple[str, str], dict[float, float]] = {}
    for item in progress_lines(lines or b""):
        for name, value in item.get("metrics", {}).items():
            # If a step was repeated after a restart, its last value counts.
            points.setdefault((str(item.get("phase", "")), name), {})[float(item["done"])] = float(value)
    return {key: tuple(sorted(curve.items())) for key, curve in points.items() if len(curve) > 2}


def stage_metrics(stage: StageRecord, curves: Curves) -> tuple[StageMetric, ...]:
    """Return the final metrics of a stage for the report, with the most important ones first."""
    shown = METRICS.get(stage.kind, {})
    names = [*(name for name in shown if name in stage.metrics), *(n for n in stage.metrics if n not in shown)]
    return tuple(_metric(stage, name, curves) for name in names)


def stage_curves(stage: StageRecord, curves: Curves) -> tuple[StageCurve, ...]:
    """Return the curves of a stage for the report, one for each phase and metric, with the most important ones first."""
    order = {name: place for place, name in enumerate(METRICS.get(stage.kind, {}))}
    phases = {phase: place for place, (phase, _) in enumerate(curves)}
    found = []
    for phase, name in sorted(curves, key=lambda key: (phases[key[0]], order.get(key[1], len(order)))):
        shown = METRICS.get(stage.kind, {}).get(name, Shown(name))
        found.append(
            StageCurve(
                name=shown.title,
                unit=shown.unit.strip(),
                phase="" if phase == stage.kind else phase,
                x_label=_X_LABELS.get(Kind(stage.kind), "step"),
                points=tuple((x, y * shown.factor) for x, y in curves[phase, name]),
            )
        )
    return tuple(found)


def _metric(stage: StageRecord, name: str, curves: Curves) -> StageMetric:
    shown = METRICS.get(stage.kind, {}).get(name, Shown(name))
    value = stage.metrics[name] * shown.factor
    # Counts are shown without decimals. A mean that happens to be a whole number, such as 100 %, is shown with
    # decimals.
    whole = float(value).is_integer() and shown.factor == 1.0 and not shown.unit
    return StageMetric(
        name=shown.title,
        value=int(value) if whole else value,
        unit=shown.unit,
        digits=shown.digits,
        note=_note(stage, name, curves),
    )


def _note(stage: StageRecord, name: str, curves: Curves) -> str:
    """Return a note that describes the items over which a metric was averaged or counted, or an empty string."""
    if stage.kind == Kind.CURATE:
        return _curate_note(stage, name)
    if stage.kind == Kind.GRPO:
        return _grpo_note(stage.config, stage.metrics, name)
    if stage.kind in (Kind.SFT, Kind.GCPO) and (stage.kind, name) in curves:
        entries = max(len(points) for (phase, _), points in curves.items() if phase == stage.kind)
        per_step = ""
        if stage.kind == Kind.GCPO and "pairs_per_rollout" in stage.config:
            per_step = f", each of {number(int(stage.config['pairs_per_rollout']))} pairs"
        return f"mean of the last {max(1, round(entries * _TAIL))} of {number(entries)} steps{per_step}"
    return ""


def _curate_note(stage: StageRecord, name: str) -> str:
    counts = {key: number(int(stage.metrics[key])) for key in ("rows", "traces", "requests") if key in stage.metrics}
    if name == "agreement" and "rows" in counts:
        return f"mean over {counts['rows']} rows"
    if name == "trace_parse_rate" and "traces" in counts:
        return f"of {counts['traces']} traces"
    if name in ("cached", "retries") and "requests" in counts:
        return f"{counts['requests']} requests were sent"
    if name.endswith("_tokens"):
        simulated = stage.config.get("labeller", "endpoint") != "endpoint"
        return "estimated from the length of the texts" if simulated else "as reported by the endpoints"
    return ""


def _grpo_note(config: Mapping[str, Any], metrics: Mapping[str, float], name: str) -> str:
    iterations = int(metrics.get("iterations", 0))
    if name in ("reward_first", "reward_last") and iterations:
        place = "first" if name == "reward_first" else "last"
        return f"mean of the {place} {min(_ENDS, iterations)} of {number(iterations)} iterations"
    per_iteration, samples = config.get("cases_per_iteration"), config.get("group_size")
    if not isinstance(per_iteration, int) or not isinstance(samples, int):
        return ""
    if name == "failed" or name.startswith("failed_"):
        return f"of {number(iterations * per_iteration * samples)} scores"
    if name == "zero_spread":
        groups = iterations * per_iteration
        count = round(metrics["zero_spread"] * groups) if math.isfinite(metrics["zero_spread"]) else 0
        return f"{number(count)} of {number(groups)} groups of {number(samples)} samples"
    return ""
