"""The SDE window: the consecutive denoising steps that are stochastic and trained.

The idea is from MixGRPO (arXiv 2507.21802) and Flow-GRPO-Fast.
"""

from __future__ import annotations

from editr1.seeding import window_rng


def draw_window(seed: int, iteration: int, *, size: int, first: int, end: int, group_key: int | None = None) -> int:
    """Draw the start of a window ``[start, start + size)`` that lies inside the steps ``[first, end)``.

    The result depends only on (seed, iteration, group_key). All samples of a group therefore share a window, for any number
    of processes and after a resume. If ``group_key`` is None, all groups of the iteration share one window.

    Raises:
        ValueError: The window does not fit into ``[first, end)``.
    """
    if size < 1 or first < 0 or first + size > end:
        raise ValueError(f"a window of {size} steps does not fit into steps {first} to {end - 1}; use a shorter window")
    return window_rng(seed, iteration, group_key).randint(first, end - size)
