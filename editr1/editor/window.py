"""The SDE window: the consecutive steps that are stochastic and trained (MixGRPO, arXiv 2507.21802; Flow-GRPO-Fast)."""

from __future__ import annotations

from editr1.seeding import window_rng


def draw_window(seed: int, iteration: int, *, size: int, first: int, end: int, group_key: int | None = None) -> int:
    """Draw the first step of a window ``[start, start + size)`` that lies inside ``[first, end)``.

    The result depends only on (seed, iteration, group_key), so all samples of a group share a window on any number of
    processes and after a resume. With ``group_key`` None all groups of the iteration share one window.

    Raises:
        ValueError: The window does not fit into ``[first, end)``.
    """
    if size < 1 or first < 0 or first + size > end:
        raise ValueError(f"a window of {size} steps does not fit into steps {first} to {end - 1}; use a shorter window")
    return window_rng(seed, iteration, group_key).randint(first, end - size)
