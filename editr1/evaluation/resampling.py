"""Bootstrap resampling of groups of observations.

Observations that share a case, an edit or a source image are correlated. If they were resampled one by one, the
confidence intervals would be too narrow. The bootstrap therefore resamples whole groups (Davison and Hinkley, 1997,
section 3.8).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from editr1.data.types import EditCase

Floats = npt.NDArray[np.float64]
Groups = Sequence[str]
"""Group name of each observation, in the order of the observations."""

_CHUNK = 4_000_000


def case_groups(cases: Iterable[EditCase]) -> list[str]:
    """Return one group name per case.

    The group of a case is its source image, which several cases can share. If all cases have the same source image,
    each case is a group. If there is only one case, there is only one group, and the bootstrap resamples single
    observations.
    """
    found = list(cases)
    digests = {id(case): case.source.sha256 for case in {id(case): case for case in found}.values()}
    return first_distinct([digests[id(case)] for case in found], [case.case_id for case in found])


def first_distinct(*labels: Groups) -> list[str]:
    """Return the first of ``labels`` with more than one group, or the last of them if none has.

    ``labels`` are alternative groupings, ordered from the largest to the smallest groups. With only one group, there
    is no variation to resample.
    """
    return list(next((names for names in labels if len(set(names)) > 1), labels[-1]))


def group_codes(groups: Groups | None, n: int) -> npt.NDArray[np.int64] | None:
    """Number the groups of ``n`` observations from 0, ``[n]``.

    Return None if observations are resampled one by one: if ``groups`` is None, if every observation is its own
    group, or if there is only one group.

    Raises:
        ValueError: ``groups`` does not have one name per observation.
    """
    if groups is None:
        return None
    if len(groups) != n:
        raise ValueError(f"groups must have one name per observation, got {len(groups)} names for {n} observations")
    names: dict[str, int] = {}
    codes = np.array([names.setdefault(name, len(names)) for name in groups], dtype=np.int64)
    return codes if 1 < len(names) < n else None


def group_sums(values: Floats, codes: npt.NDArray[np.int64]) -> Floats:
    """Return the sum of the values of each group, ``[groups]``."""
    return np.asarray(np.bincount(codes, weights=values), dtype=np.float64)


def resampled_means(
    data: Floats, samples: int, rng: np.random.Generator, codes: npt.NDArray[np.int64] | None = None
) -> Floats:
    """Draw ``samples`` resamples of ``data`` with replacement and return the mean of each resample, ``[samples]``.

    With ``codes`` (see :func:`group_codes`), whole groups are drawn. Otherwise single observations are drawn. If they
    have at most 64 distinct values, the function draws the number of occurrences of each value instead, which is
    faster and gives means with the same distribution.
    """
    if codes is not None:
        return resampled_ratios(group_sums(data, codes), group_sums(np.ones_like(data), codes), samples, rng)
    levels, counts = np.unique(data, return_counts=True)
    if levels.size <= 64:
        drawn = rng.multinomial(data.size, counts / data.size, size=samples)
        return np.asarray(drawn @ levels / data.size, dtype=np.float64)
    return np.concatenate([data[index].mean(axis=1) for index in _drawn(data.size, samples, rng)])


def resampled_ratios(top: Floats, bottom: Floats, samples: int, rng: np.random.Generator) -> Floats:
    """Draw ``samples`` resamples of groups, and return sum(top) / sum(bottom) of each resample, ``[samples]``."""
    return np.concatenate(
        [top[index].sum(axis=1) / bottom[index].sum(axis=1) for index in _drawn(top.size, samples, rng)]
    )


def resampled_macro_means(
    data: Floats, types: Sequence[str], samples: int, rng: np.random.Generator, codes: npt.NDArray[np.int64]
) -> Floats:
    """Draw ``samples`` resamples of groups.

    Return the mean over types of the mean of each type, ``[samples]``. Each group is replaced with a group that
    occurs in the same types, so that every type occurs in every resample.
    """
    names: dict[str, int] = {}
    kinds = np.array([names.setdefault(name, len(names)) for name in types], dtype=np.int64)
    cells = codes * len(names) + kinds
    shape = (int(codes.max()) + 1, len(names))
    size = shape[0] * shape[1]
    top = np.bincount(cells, weights=data, minlength=size).reshape(shape)
    bottom = np.bincount(cells, minlength=size).reshape(shape).astype(np.float64)
    strata: dict[tuple[bool, ...], list[int]] = defaultdict(list)
    for group in range(shape[0]):
        strata[tuple(bottom[group] > 0)].append(group)
    sums, counts = np.zeros((samples, shape[1])), np.zeros((samples, shape[1]))
    for members in strata.values():
        chosen = np.array(members)
        start = 0
        for index in _drawn(chosen.size, samples, rng, chosen.size * shape[1]):
            rows = slice(start, start + len(index))
            sums[rows] += top[chosen[index]].sum(axis=1)
            counts[rows] += bottom[chosen[index]].sum(axis=1)
            start += len(index)
    return np.asarray((sums / counts).mean(axis=1), dtype=np.float64)


def _drawn(n: int, samples: int, rng: np.random.Generator, width: int | None = None) -> Iterable[npt.NDArray[np.int64]]:
    """Yield the indices of resamples, ``[rows, n]``, in blocks that limit the memory use.

    ``width`` is the number of values per row.
    """
    rows = max(1, _CHUNK // (width or n))
    for start in range(0, samples, rows):
        yield rng.integers(0, n, size=(min(rows, samples - start), n))
