"""Metrics of public benchmarks for :mod:`tests.unit.evaluation.recomputed_public`, computed without editr1."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

Item = dict[str, Any]


class Observation(NamedTuple):
    """One item of a metric. ``kind`` is its type of edit, and ``group`` is resampled as a whole."""

    value: float
    kind: str
    group: str


class Metric(NamedTuple):
    """The observations of a metric, whose value is their mean or, if ``macro``, the mean of the means of their types."""

    observations: list[Observation]
    macro: bool = False


Metrics = dict[tuple[str, str], Metric]
"""Metrics by the name of their row and the rule: "published" or "ours"."""


class Result(NamedTuple):
    """Metrics of one table, the number of edits, and the number of edits without a score or rating by cause."""

    metrics: Metrics
    num_edits: int
    failures: dict[str, int]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def rows_of(folder: Path) -> list[Item]:
    return [row for file in sorted(folder.rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def value_of(metric: Metric) -> float:
    means = [np.mean(values) for values in _by_kind(metric).values()]
    return float(np.mean(means))


def _by_kind(metric: Metric) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for item in metric.observations:
        found[item.kind if metric.macro else ""].append(item.value)
    return found


def interval(metric: Metric, samples: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % percentile interval of a bootstrap over groups.

    For a mean over types, a group is replaced with one that occurs in the same types.
    """
    groups: dict[str, list[Observation]] = defaultdict(list)
    for item in metric.observations:
        groups[item.group].append(item)
    alike: dict[frozenset[str], list[str]] = defaultdict(list)
    for name, members in groups.items():
        alike[frozenset(item.kind for item in members) if metric.macro else frozenset()].append(name)
    drawn = []
    for _ in range(samples):
        names = [names[i] for names in alike.values() for i in rng.integers(0, len(names), len(names))]
        drawn.append(value_of(Metric([item for name in names for item in groups[name]], metric.macro)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
