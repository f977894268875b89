"""The three headline metrics at the top of the report, each with its confidence interval and an explanation of the interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from editr1.evaluation.metrics import Estimate
from editr1.evaluation.report import formats
from editr1.evaluation.report.model import ReportData, VerifierMetrics

Verdict = Literal["clear", "worse", "open", "none"]
"""Position of a metric's confidence interval relative to the baseline.

"clear" means that the interval is above the baseline, "worse" that it is below the baseline, and "open" that it
includes the baseline. "none" means that the metric was not measured.
"""


class Ruler(NamedTuple):
    """Positions on a ruler, in percent of its width. A ruler is the scale drawn below a metric.

    ``low`` and ``high`` are the ends of the confidence interval. ``value`` is the estimate, ``mark`` is the baseline,
    and ``ceiling`` is the largest value that can be expected, or None. ``ends`` contains the labels of the ruler's
    left end, the baseline and the ruler's right end.
    """

    low: float
    high: float
    value: float
    mark: float
    ends: tuple[str, str, str]
    ceiling: float | None = None


class Headline(NamedTuple):
    """A headline metric of the report: its texts, and its ruler, which is None if the metric was not measured.

    ``caveat`` describes the variation that the confidence interval does not cover. ``ceiling`` is the label of the
    ruler's ceiling.
    """

    title: str
    value: str
    unit: str
    interval: str
    verdict: Verdict
    explanation: str
    ruler: Ruler | None
    caveat: str = ""
    ceiling: str = ""


@dataclass(frozen=True)
class _Style:
    """Display settings of a headline metric.

    Attributes:
        title: Title of the metric.
        items: Items over which the confidence interval is computed.
        unit: Unit that is displayed after the value.
        note: Text that is displayed after the confidence interval and the number of items.
        factor: Factor by which the estimate is multiplied for display.
        baseline: Displayed value that means "no effect".
        baseline_name: Name of the baseline in the explanation of the confidence interval.
        ends: Displayed values at the ends of the ruler, or None to fit the ruler to the confidence interval.
        signed: Whether a plus sign is displayed before positive values.
    """

    title: str
    items: str
    unit: str
    note: str
    factor: float = 1.0
    baseline: float = 0.0
    baseline_name: str = "zero"
    ends: tuple[float, float] | None = None
    signed: bool = True


_SFT = _Style(
    "Verifier after SFT",
    "pairs",
    "% of pairs",
    "ties count as half correct",
    100.0,
    50.0,
    "chance (50%)",
    (0.0, 100.0),
    signed=False,
)
_GCPO = _Style(
    "Gain from GCPO", "pairs", " points", "both verifiers on the same pairs, ties count as half correct", 100.0
)
_EDITOR = _Style("Editor gain from RL", "cases", " of 10", "true scores of the same cases before and after RL")

TRUE_SCORE = (
    "The true score of an edit, from 0 to 10, is read from its pixels: 5 points for carrying out the instruction, 3 for"
    " leaving everything else as it was (1.5 less for each fault), and 2 for a clean image, but at most 4 if nothing of the"
    " instruction was carried out."
)
"""Definition of the ground-truth score of the shapes dataset (:func:`editr1.shapes.truth.rubric`)."""

SEED_DEVIATION: Final = {"accuracy": 1.0, "gain": 2.2}
"""Standard deviation, in points, of the SFT verifier's accuracy and of the gain from GCPO over three seeds of the quickstart.

The source is the section "The quickstart at three seeds" of docs/reproduction.md; a test derives both from its table.
"""
SEEDS = (
    f"Between three seeds of the quickstart, the standard deviation was {SEED_DEVIATION['accuracy']:.1f} points for the accuracy"
    f" of the SFT-RRM and {SEED_DEVIATION['gain']:.1f} points for the gain of the RL-RRM (docs/reproduction.md)."
)
OTHER_SEEDS = "The interval does not include the variation between training runs with different seeds."


def headlines(data: ReportData) -> tuple[Headline, Headline, Headline]:
    """Return the accuracy of the SFT verifier, the gain of the RL verifier over it, and the editor's gain from RL."""
    sft = find_verifier(data, "sft")
    accuracy = sft.accuracy.half_credit if sft and sft.accuracy else None
    gain = data.editor.gain.score if data.editor and data.editor.scored_by == "truth" else None
    no_editor = (
        "There is no ground truth for these images. The verifier's scores below are not an independent measurement."
        if data.truth == "none"
        else "The editor was not evaluated in this run."
    )
    gained = data.verifier_gain.half_credit
    missing = "No verifier from the SFT stage was evaluated."
    return (
        _headline(_SFT, accuracy, missing, _seeds(data, "accuracy"), ceiling(data)),
        _headline(_GCPO, gained, "The RL verifier was not compared with the SFT verifier.", _seeds(data, "gain")),
        _headline(_EDITOR, gain, no_editor, OTHER_SEEDS),
    )


def _seeds(data: ReportData, metric: Literal["accuracy", "gain"]) -> str:
    """Return what is known about the variation of a metric between seeds."""
    if data.truth != "shapes":
        return OTHER_SEEDS
    return (
        f"Between three seeds of the quickstart, the value's standard deviation was {SEED_DEVIATION[metric]:.1f} points"
        " (docs/reproduction.md)."
    )


def ceiling(data: ReportData) -> float | None:
    """Return the accuracy, in percent, that a perfect verifier is expected to have on simulated preferences.

    It is None if the preferences are not simulated.
    """
    return None if data.flip_rate is None else 100.0 * (1.0 - data.flip_rate)


def find_verifier(data: ReportData, role: Literal["sft", "rl"]) -> VerifierMetrics | None:
    """Return the first verifier of the report with the given role, or None if there is none."""
    return next((v for v in data.verifiers if v.role == role), None)


def ruler(
    value: Estimate, factor: float, mark: float, ends: tuple[float, float] | None, ceiling: float | None = None
) -> Ruler:
    """Place an estimate, multiplied by ``factor``, the baseline ``mark`` and the ``ceiling`` on a ruler.

    ``ends`` are the values at the ends of the ruler. If it is None, the ruler extends slightly beyond the confidence
    interval and the baseline.
    """
    low, high, middle = value.low * factor, value.high * factor, value.value * factor
    if ends is None:
        left, right = min(low, mark), max(high, mark)
        pad = 0.12 * ((right - left) or 1.0)
        left, right = left - pad, right + pad
    else:
        left, right = min(ends[0], low), max(ends[1], high)

    def position(x: float) -> float:
        return round(100.0 * (x - left) / ((right - left) or 1.0), 2)

    labels = tuple(formats.number(x, 0) for x in (left, mark, right))
    return Ruler(
        position(low),
        position(high),
        position(middle),
        position(mark),
        (labels[0], labels[1], labels[2]),
        None if ceiling is None else position(ceiling),
    )


def _headline(
    style: _Style, value: Estimate | None, missing: str, seeds: str, ceiling: float | None = None
) -> Headline:
    if value is None:
        return Headline(style.title, formats.NOT_MEASURED, "", "", "none", missing, None)
    digits = 1 if style.factor == 100.0 else 2
    verdict, explanation = _verdict(value.low * style.factor, value.high * style.factor, style)
    confidence = formats.number(100 * value.confidence, 0)
    span = formats.interval(value, scale=style.factor, digits=digits, signed=style.signed)
    return Headline(
        style.title,
        formats.estimate(value, scale=style.factor, digits=digits, signed=style.signed),
        style.unit,
        f"{confidence}% interval {span}, {formats.count(value)}; {style.note}",
        verdict,
        explanation,
        ruler(value, style.factor, style.baseline, style.ends, ceiling),
        f"The interval describes the variation over the {style.items} for one training run. {seeds}",
        "" if ceiling is None else f"{formats.number(ceiling, 0)} labels",
    )


def _verdict(low: float, high: float, style: _Style) -> tuple[Verdict, str]:
    if low > style.baseline:
        return "clear", f"The confidence interval is entirely above {style.baseline_name}."
    if high < style.baseline:
        return "worse", f"The confidence interval is entirely below {style.baseline_name}."
    return "open", f"The confidence interval includes {style.baseline_name}: no significant effect."
