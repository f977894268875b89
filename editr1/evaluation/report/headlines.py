"""The three headline metrics at the top of the report, each with its confidence interval and the meaning of this interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from editr1.evaluation.metrics import Estimate
from editr1.evaluation.report import formats
from editr1.evaluation.report.model import ReportData, VerifierMetrics

Verdict = Literal["clear", "worse", "open", "none"]
"""Position of a metric's confidence interval relative to the baseline.

"clear" means above the baseline, "worse" below it, and "open" that the interval includes the baseline. "none" means
that the metric was not measured.
"""


class Ruler(NamedTuple):
    """Positions on a ruler, in percent of its width. A ruler is the scale that is drawn below a metric.

    ``low`` and ``high`` are the ends of the confidence interval. ``value`` is the estimate and ``mark`` the baseline.
    ``ends`` contains the labels of the ruler's left end, the baseline and the ruler's right end.
    """

    low: float
    high: float
    value: float
    mark: float
    ends: tuple[str, str, str]


class Headline(NamedTuple):
    """A headline metric of the report: its texts, and its ruler, which is None if the metric was not measured."""

    title: str
    value: str
    unit: str
    interval: str
    verdict: Verdict
    explanation: str
    ruler: Ruler | None


@dataclass(frozen=True)
class _Style:
    """Display settings of a headline metric.

    Attributes:
        title: Title of the metric.
        unit: Unit that is displayed after the value.
        note: Text that is displayed after the confidence interval and the number of items.
        factor: Factor by which the estimate is multiplied for display.
        baseline: Displayed value that means "no effect".
        baseline_name: Name of the baseline in the explanation of the confidence interval.
        ends: Displayed values at the ends of the ruler, or None to fit the ruler to the confidence interval.
        signed: Whether a plus sign is displayed before positive values.
    """

    title: str
    unit: str
    note: str
    factor: float = 1.0
    baseline: float = 0.0
    baseline_name: str = "zero"
    ends: tuple[float, float] | None = None
    signed: bool = True


_SFT = _Style(
    "Verifier after SFT",
    "% of pairs",
    "ties count as half correct",
    100.0,
    50.0,
    "chance (50%)",
    (0.0, 100.0),
    signed=False,
)
_GCPO = _Style("Gain from GCPO", " points", "both verifiers on the same pairs, ties count as half correct", 100.0)
_EDITOR = _Style("Editor gain from RL", " of 10", "ground-truth scores of the same cases before and after RL")


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
    return (
        _headline(_SFT, accuracy, "No verifier from the SFT stage was evaluated."),
        _headline(_GCPO, data.verifier_gain.half_credit, "The RL verifier was not compared with the SFT verifier."),
        _headline(_EDITOR, gain, no_editor),
    )


def find_verifier(data: ReportData, role: Literal["sft", "rl"]) -> VerifierMetrics | None:
    """Return the first verifier of the report with the given role, or None if there is none."""
    return next((v for v in data.verifiers if v.role == role), None)


def ruler(value: Estimate, factor: float, mark: float, ends: tuple[float, float] | None) -> Ruler:
    """Place an estimate, multiplied by ``factor``, and the baseline ``mark`` on a ruler.

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
    return Ruler(position(low), position(high), position(middle), position(mark), (labels[0], labels[1], labels[2]))


def _headline(style: _Style, value: Estimate | None, missing: str) -> Headline:
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
        f"{confidence}% interval {span}, n = {formats.number(value.n)}; {style.note}",
        verdict,
        explanation,
        ruler(value, style.factor, style.baseline, style.ends),
    )


def _verdict(low: float, high: float, style: _Style) -> tuple[Verdict, str]:
    if low > style.baseline:
        return "clear", f"The confidence interval is entirely above {style.baseline_name}."
    if high < style.baseline:
        return "worse", f"The confidence interval is entirely below {style.baseline_name}."
    return "open", f"The confidence interval includes {style.baseline_name}: no significant effect."
