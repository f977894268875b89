"""Format numbers, times and digests for display."""

from __future__ import annotations

import math

from editr1.durations import format_duration, format_minute
from editr1.evaluation.metrics import Estimate

NOT_MEASURED = "not measured"


def number(value: float | int | None, digits: int = 2, *, signed: bool = False) -> str:
    """Format a number with a typographic minus sign and, from 10,000, thin spaces as thousands separators.

    None, NaN and infinity are formatted as "not measured".
    """
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    text = f"{value:{'+' if signed else ''},.{0 if isinstance(value, int) else digits}f}"
    if abs(value) < 10_000:
        text = text.replace(",", "")
    return text.replace(",", "\u202f").replace("-", "\u2212")


def scientific(value: float, digits: int = 1) -> str:
    """Format a number in scientific notation with typographic minus signs."""
    return f"{value:.{digits}e}".replace("-", "\u2212")


def estimate(value: Estimate | None, *, scale: float = 1.0, digits: int = 1, signed: bool = False) -> str:
    """Format the value of an estimate, multiplied by ``scale``, without its confidence interval."""
    return NOT_MEASURED if value is None else number(value.value * scale, digits, signed=signed)


def interval(value: Estimate | None, *, scale: float = 1.0, digits: int = 1, signed: bool = False) -> str:
    """Format the confidence interval of an estimate, such as "1.0 to 2.0". Return an empty string for None."""
    if value is None:
        return ""
    low, high = (number(v * scale, digits, signed=signed) for v in (value.low, value.high))
    return f"{low} to {high}"


def count(value: Estimate | None) -> str:
    """Return the sample size of an estimate, such as "n = 1000", and the number of groups if items were resampled in groups."""
    if value is None:
        return ""
    groups = f" in {number(value.groups)} groups" if value.groups is not None else ""
    return f"n = {number(value.n)}{groups}"


def seconds(value: float | None) -> str:
    """Format a duration in seconds, such as "4 min 05 s". None, NaN and infinity are formatted as "not measured"."""
    return NOT_MEASURED if value is None or not math.isfinite(value) else format_duration(value)


def moment(value: float | None) -> str:
    """Format a time, given in seconds since the epoch, as date and time in UTC. Return an empty string for None."""
    return "" if value is None else format_minute(value)


def short(digest: str) -> str:
    """Return the first twelve hexadecimal digits of a digest, without the prefix "sha256:"."""
    return digest.removeprefix("sha256:")[:12]
