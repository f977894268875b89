"""Format durations for display, and convert timestamps between seconds since the epoch and text."""

from __future__ import annotations

from datetime import UTC, datetime


def format_duration(seconds: float) -> str:
    """Format a duration: "0.4 s", "38 s", "4 min 05 s", "2 h 10 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_minute(epoch: float) -> str:
    """Format seconds since the epoch as a date and time in UTC, to the minute: "2026-05-01 17:05 UTC"."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M UTC")


def format_timestamp(epoch: float) -> str:
    """Format seconds since the epoch as RFC 3339 in UTC, to the second: "2026-05-01T17:05:48Z"."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> float:
    """Return the seconds since the epoch of an RFC 3339 timestamp in UTC, such as "2026-05-01T17:05:48.123456789Z".

    Timestamps from Kubernetes have nanoseconds, which ``datetime`` would truncate to microseconds. This function
    rounds to the nearest float instead.

    Raises:
        ValueError: ``text`` is not an RFC 3339 timestamp in UTC.
    """
    whole, dot, fraction = text.removesuffix("Z").partition(".")
    seconds = datetime.fromisoformat(f"{whole}+00:00").timestamp()
    return seconds + float(f"0.{fraction}") if dot else seconds
