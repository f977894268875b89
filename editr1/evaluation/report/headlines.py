"""The three figures at the top of the page, each with its interval and with what the interval says."""

from __future__ import annotations

from typing import Literal, NamedTuple

from editr1.evaluation.metrics import Estimate
from editr1.evaluation.report import formats
from editr1.evaluation.report.model import ReportData, VerifierFigures


class Scale(NamedTuple):
    """Where an interval is drawn, in per cent of the ruler's width."""

    low: float
    high: float
    value: float
    mark: float
    ends: tuple[str, str, str]


class Headline(NamedTuple):
    """A figure in words. ``verdict``: "clear" excludes the mark, "open" does not, "none" was not measured."""

    title: str
    figure: str
    unit: str
    interval: str
    verdict: Literal["clear", "worse", "open", "none"]
    says: str
    scale: Scale | None


def headlines(data: ReportData) -> tuple[Headline, Headline, Headline]:
    """SFT verifier against chance, RL verifier against SFT, editor after RL against before."""
    sft = find_verifier(data, "sft")
    accuracy = sft.accuracy.half_credit if sft and sft.accuracy else None
    gain = data.editor.gain.score if data.editor and data.editor.judge == "truth" else None
    no_editor = (
        "No truth exists for these pictures. Below is what the verifier thinks, which is no measurement."
        if data.truth == "none"
        else "The editor was not evaluated in this run."
    )
    return (
        _headline(
            "Verifier after SFT", accuracy, 100.0, " % of pairs", "ties count half", 50.0, (0.0, 100.0), False,
            "chance", "No verifier of the SFT stage was evaluated.",
        ),
        _headline(
            "Gain by GCPO", data.verifier_gain.half_credit, 100.0, " points", "same pairs, ties count half", 0.0, None,
            True, "zero", "The RL verifier was not compared with the SFT verifier.",
        ),
        _headline(
            "Editor gain by RL", gain, 1.0, " of 10", "true score, same cases", 0.0, None, True, "zero", no_editor
        ),
    )  # fmt: skip


def find_verifier(data: ReportData, role: Literal["sft", "rl"]) -> VerifierFigures | None:
    """The first verifier of that role."""
    return next((v for v in data.verifiers if v.role == role), None)


def ruler(value: Estimate, factor: float, mark: float, ends: tuple[float, float] | None) -> Scale:
    """Place an estimate and a mark on a ruler; without ``ends`` it reaches a little past both."""
    low, high, middle = value.low * factor, value.high * factor, value.value * factor
    if ends is None:
        left, right = min(low, mark), max(high, mark)
        pad = 0.12 * ((right - left) or 1.0)
        left, right = left - pad, right + pad
    else:
        left, right = min(ends[0], low), max(ends[1], high)

    def at(x: float) -> float:
        return round(100.0 * (x - left) / ((right - left) or 1.0), 2)

    names = tuple(formats.number(x, 0) for x in (left, mark, right))
    return Scale(at(low), at(high), at(middle), at(mark), (names[0], names[1], names[2]))


def _headline(
    title: str,
    value: Estimate | None,
    factor: float,
    unit: str,
    note: str,
    mark: float,
    ends: tuple[float, float] | None,
    signed: bool,
    mark_name: str,
    missing: str,
) -> Headline:
    if value is None:
        return Headline(title, formats.NOT_MEASURED, "", "", "none", missing, None)
    digits = 1 if factor == 100.0 else 2
    low, high = value.low * factor, value.high * factor
    place = f"{mark_name} (50 %)" if mark else mark_name
    verdict: Literal["clear", "worse", "open", "none"]
    if low > mark:
        verdict, says = "clear", f"The interval excludes {place}."
    elif high < mark:
        verdict, says = "worse", f"The interval lies below {place}."
    else:
        verdict, says = "open", f"The interval includes {place}: no effect is shown."
    confidence = formats.number(100 * value.confidence, 0)
    span = formats.interval(value, scale=factor, digits=digits, signed=signed)
    return Headline(
        title,
        formats.estimate(value, scale=factor, digits=digits, signed=signed),
        unit,
        f"{confidence} % interval {span}, n = {formats.number(value.n)}; {note}",
        verdict,
        says,
        ruler(value, factor, mark, ends),
    )
