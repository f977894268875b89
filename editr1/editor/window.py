"""Which consecutive steps are stochastic and trained: the SDE window (MixGRPO, arXiv 2507.21802; Flow-GRPO-Fast)."""

from __future__ import annotations

from editr1.seeding import window_rng


def draw_window(seed: int, iteration: int, *, size: int, first: int, end: int, group: int | None = None) -> int:
    """First step of the window ``[start, start + size)`` inside ``[first, end)``.

    A function of (seed, iteration, group) alone: every sample of a group, on any process and after a resume, gets the
    same one. ``group`` None gives one window for the whole iteration.
    """
    if size < 1 or first < 0 or first + size > end:
        raise ValueError(f"a window of {size} steps does not fit into steps {first} to {end - 1}")
    return window_rng(seed, iteration, group).randint(first, end - size)
