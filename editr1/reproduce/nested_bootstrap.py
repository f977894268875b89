"""Two-stage bootstrap over seeds and items, which shows whether a claim also holds for other seeds and other items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from editr1.evaluation.metrics import Bootstrap, Estimate, interval
from editr1.evaluation.resampling import Groups, group_codes, resampled_means

Floats = npt.NDArray[np.float64]


def nested_estimate(seeds: Sequence[Floats], bootstrap: Bootstrap, groups: Sequence[Groups] | None = None) -> Estimate:
    """Estimate the mean over seeds of the mean over items, with a percentile interval from the two-stage bootstrap.

    ``seeds[s]`` contains one value (or paired difference) per item of a seed, ``[n_s]``. Each resample draws seeds with
    replacement, then items of each drawn seed with replacement (Davison and Hinkley, 1997, section 3.8). With one seed,
    the interval only covers the variation over items. ``n`` of the estimate is the number of items of all seeds.
    ``groups[s]`` contains the group of each item of a seed, such as its case; items of one group are drawn together.

    Raises:
        ValueError: There are no seeds, or a seed has no items.
    """
    if not seeds or any(values.size == 0 for values in seeds):
        raise ValueError(f"every seed needs at least one item, got {[values.size for values in seeds]} items per seed")
    count, rng = len(seeds), np.random.default_rng(bootstrap.seed)
    # There is one row of means per position in the resample, so that the items of a seed that is drawn twice are
    # drawn twice independently.
    codes = [group_codes(None if groups is None else groups[s], values.size) for s, values in enumerate(seeds)]
    means = np.stack(
        [
            resampled_means(values, count * bootstrap.samples, rng, code).reshape(count, bootstrap.samples)
            for values, code in zip(seeds, codes, strict=True)
        ]
    )
    drawn_seeds = rng.integers(0, count, size=(count, bootstrap.samples))
    places, columns = np.arange(count)[:, None], np.arange(bootstrap.samples)[None, :]
    drawn = means[drawn_seeds, places, columns].mean(axis=0)
    value = float(np.mean([values.mean() for values in seeds]))
    sizes = [values.size if code is None else int(code.max()) + 1 for values, code in zip(seeds, codes, strict=True)]
    n = sum(values.size for values in seeds)
    return interval(value, drawn, n, bootstrap, sum(sizes) if sum(sizes) < n else None)
