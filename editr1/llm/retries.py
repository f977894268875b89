"""Decide whether a failed chat request is retried, and after which delay."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final


def is_retried(status: int) -> bool:
    """Return True if a request may succeed after a response with this HTTP status: 408, 409, 425, 429 and 5xx."""
    return status in (408, 409, 425, 429) or status >= 500


def retry_delay(number: int, requested: float | None) -> float:
    """Return the delay in seconds before retry ``number`` (from 0).

    This is the delay that the server requested, but at most two minutes. If the server requested none, the delay
    starts at 0.5 s and doubles up to 8 s. A random part of up to a quarter of the delay, and at most one second, is
    added, so that concurrent requests are not all retried at the same time.
    """
    backoff = min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(number, 10))
    delay = backoff if requested is None else min(requested, _MAX_REQUESTED_S)
    return delay + random.uniform(0.0, min(1.0, 0.25 * delay))


def requested_delay(headers: Mapping[str, str]) -> float | None:
    """Return the delay in seconds before the retry that the server requests, or None if it requests none.

    The delay is in the header ``Retry-After`` (seconds or an HTTP date) or ``Retry-After-Ms``. Dates in the past and
    values that cannot be parsed are ignored. ``headers`` must be case-insensitive.
    """
    for name, unit in (("Retry-After-Ms", 1e-3), ("Retry-After", 1.0)):
        value = headers.get(name, "").strip()
        try:
            delay = float(value) * unit
        except ValueError:
            delay = _seconds_until(value)
        if math.isfinite(delay) and delay > 0:
            return delay
    return None


def _seconds_until(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return math.nan


_MAX_REQUESTED_S: Final = 120.0
_FIRST_BACKOFF_S: Final = 0.5
_MAX_BACKOFF_S: Final = 8.0
