"""Collect the results of a reproduction from its runs, and define the data in the result files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from editr1.artifacts import ArtifactStore
from editr1.config.loader import ConfigError
from editr1.config.reproduce import Budget
from editr1.data.tables import read_table
from editr1.data.types import PreferencePair
from editr1.evaluation.items import EDITS_FILE, PAIRS_FILE, EditItem, PairItem, read_items
from editr1.evaluation.metrics import Bootstrap, Estimate
from editr1.evaluation.report.model import Point, ReportData
from editr1.reproduce.ceiling import UPPER_BOUNDS, Ceiling, ceiling
from editr1.reproduce.claims import Comparison, Outcome, outcome
from editr1.reproduce.experiments import Experiment, run_name
from editr1.reproduce.metrics import EvaluatedItems, Measure, Metric, differences
from editr1.reproduce.nested_bootstrap import nested_estimate
from editr1.runs.record import RunRecord, progress_key
from editr1.runs.report import EVALUATION_FILE, curves

SECOND_ANNOTATORS_OFFSET = 1_000_000
"""The seed of the second set of annotators is the seed of the run plus this offset."""


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ComparisonResult(_Result):
    """Result of a comparison: the difference, the means of both experiments (``levels``), and the outcome."""

    claim: int
    text: str
    paper: str
    kind: str
    least: float
    most: float
    unit: str
    scale: float
    first: str
    second: str
    metric: str
    levels: tuple[float, float] | None
    difference: Estimate | None
    by_seed: dict[int, float]
    outcome: Outcome


class ExperimentResult(_Result):
    """Results of an experiment: metrics over all seeds, training curves by name and seed, and run times by seed."""

    name: str
    what: str
    metrics: dict[str, Estimate]
    verdicts: dict[str, float]
    curves: dict[str, dict[int, tuple[Point, ...]]]
    seconds: dict[int, float]


class Reproduction(_Result):
    """All results of a reproduction, with the settings and the software versions that produced them."""

    seeds: tuple[int, ...]
    budget: Budget
    command: str
    git_revisions: list[str]
    """Git revisions of the code that executed the runs."""
    machines: list[str]
    versions: dict[str, str]
    seconds: float
    """Total time of all stages except reward servers."""
    failed: dict[str, str]
    """Reason for the failure of each failed run, by run name. If a dependency of a run failed, the run failed too."""
    comparisons: list[ComparisonResult]
    experiments: list[ExperimentResult]
    ceilings: dict[str, Estimate]
    """Fraction of held-out pairs on which the ground truth agrees with the labels, and the same for a second set of
    annotators."""


class CollectedResults:
    """Evaluations and records of the completed experiments, by seed and name."""

    def __init__(self) -> None:
        self.evaluated: dict[tuple[int, str], EvaluatedItems] = {}
        self.reports: dict[tuple[int, str], ReportData] = {}
        self.curves: dict[tuple[int, str], dict[str, tuple[Point, ...]]] = {}
        self.seconds: dict[tuple[int, str], float] = {}
        self.ceilings: dict[int, Ceiling] = {}
        self.failed: dict[tuple[int, str], str] = {}
        self.records: dict[tuple[int, str], RunRecord] = {}

    def add(self, seed: int, experiment: Experiment, record: RunRecord, store: ArtifactStore) -> None:
        """Read the results of a completed experiment from the store, and add them."""
        key = (seed, experiment.name)
        self.records[key] = record
        attempts = [a for stage in record.stages.values() if stage.kind != "serve" for a in stage.attempts if a.ended]
        if attempts:
            self.seconds[key] = sum((a.ended or a.started) - a.started for a in attempts)
        self.curves[key] = {
            f"{stage.name}: {name}": points
            for stage in record.stages.values()
            for name, points in curves(
                stage, store.get_record(progress_key(run_name(seed, experiment.name), stage.name, stage.key))
            ).items()
        }
        if experiment.name == "data":
            with tempfile.TemporaryDirectory() as scratch:
                folder = store.fetch(record.stages["curate"].outputs["pairs-test"], Path(scratch) / "p")
                pairs = list(read_table(folder / "pairs-test.parquet", PreferencePair))
            self.ceilings[seed] = ceiling(pairs, seed + SECOND_ANNOTATORS_OFFSET)
        stage = record.stages.get("evaluate")
        if stage is None:
            return
        with tempfile.TemporaryDirectory() as scratch:
            folder = store.fetch(stage.outputs["evaluation"], Path(scratch) / "e")
            self.reports[key] = ReportData.model_validate_json((folder / EVALUATION_FILE).read_bytes())
            self.evaluated[key] = EvaluatedItems(
                tuple(read_items(folder / PAIRS_FILE, PairItem)), tuple(read_items(folder / EDITS_FILE, EditItem))
            )

    def values(self, seed: int, measure: Measure) -> dict[str, float] | None:
        """Return the values of ``measure`` with the given seed, by pair or case id; None if there are no results."""
        evaluated = self.evaluated.get((seed, measure.experiment))
        return (measure.values(evaluated) or None) if evaluated else None

    def groups(self, seed: int, measure: Measure) -> dict[str, str]:
        """Return the group of each pair or case id with the given seed (see :meth:`Measure.groups`)."""
        evaluated = self.evaluated.get((seed, measure.experiment))
        return measure.groups(evaluated) if evaluated else {}


def measure_comparison(
    comparison: Comparison, collected: CollectedResults, seeds: Sequence[int], bootstrap: Bootstrap
) -> ComparisonResult:
    """Measure a comparison over the seeds for which both experiments have results."""
    metric, by_seed, levels, groups = comparison.first.metric, {}, {}, []
    for seed in seeds:
        first, second = collected.values(seed, comparison.first), collected.values(seed, comparison.second)
        if first and second and (values := differences(first, second, metric)).size:
            by_seed[seed] = values
            both, names = first.keys() & second.keys(), collected.groups(seed, comparison.first)
            groups.append([names[name] for name in first if name in both])
            levels[seed] = [sum(side[name] for name in both) / len(both) for side in (first, second)]
    found = nested_estimate(list(by_seed.values()), bootstrap, groups) if by_seed else None
    means = [sum(level[side] for level in levels.values()) / len(levels) for side in (0, 1)] if levels else None
    return ComparisonResult(
        claim=comparison.claim,
        text=comparison.text,
        paper=comparison.paper,
        kind=comparison.kind,
        least=comparison.least,
        most=comparison.most,
        unit=comparison.unit,
        scale=comparison.scale,
        first=comparison.first.experiment,
        second=comparison.second.experiment,
        metric=metric,
        levels=(means[0], means[1]) if means and metric != "better" else None,
        difference=found,
        by_seed={seed: float(values.mean()) for seed, values in by_seed.items()},
        outcome=outcome(comparison, found),
    )


def measure_experiment(
    experiment: Experiment, collected: CollectedResults, seeds: Sequence[int], bootstrap: Bootstrap
) -> ExperimentResult:
    """Compute the metrics of one experiment over the seeds, and collect its curves and run times."""
    metrics: dict[str, Estimate] = {}
    for measure, name in _measures(experiment.name):
        values = {seed: v for seed in seeds if (v := collected.values(seed, measure))}
        if values:
            arrays = [differences(v, None, measure.metric) for v in values.values()]
            names = {seed: collected.groups(seed, measure) for seed in values}
            groups = [[names[seed][item] for item in found] for seed, found in values.items()]
            metrics[name] = nested_estimate(arrays, bootstrap, groups)
    return ExperimentResult(
        name=experiment.name,
        what=experiment.what,
        metrics=metrics,
        verdicts=_verdicts(experiment.name, collected, seeds),
        curves=_by_name(
            {s: collected.curves[s, experiment.name] for s in seeds if (s, experiment.name) in collected.curves}
        ),
        seconds={s: collected.seconds[s, experiment.name] for s in seeds if (s, experiment.name) in collected.seconds},
    )


def ceilings(collected: CollectedResults, seeds: Sequence[int], bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Estimate the upper bounds of the accuracy over the seeds that have pairs. The result is empty if no seed has pairs."""
    found = [collected.ceilings[seed] for seed in seeds if seed in collected.ceilings]
    if not found:
        return {}
    groups = [item.groups for item in found]
    return {name: nested_estimate([getattr(item, name) for item in found], bootstrap, groups) for name in UPPER_BOUNDS}


def versions_of(records: Iterable[RunRecord]) -> dict[str, str]:
    """Return the version of each package in the runs.

    If the versions differ between runs, the text is "<a> and <b>".
    """
    found: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.versions.items():
            found.setdefault(name, set()).add(version)
    return {name: " and ".join(sorted(several)) for name, several in found.items()}


def check_existing_results(file: Path, budget: Budget, seeds: Collection[int]) -> None:
    """Check that a new reproduction, which writes to ``file``, does not lose results of an earlier reproduction.

    Raises:
        ConfigError: ``file`` does not contain a reproduction, or contains a reproduction with a different budget or
            with seeds that are not in ``seeds``.
    """
    if not file.is_file():
        return
    advice = "choose another --out, or delete the file"
    try:
        kept = json.loads(file.read_bytes())
        others, kept_budget = sorted(set(kept["seeds"]) - set(seeds)), kept["budget"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file}: does not contain the results of a reproduction ({error}); delete the file"
        ) from None
    if kept_budget != budget.model_dump(mode="json"):
        raise ConfigError(f"{file}: contains results for a different budget, which would be overwritten; {advice}")
    if others:
        raise ConfigError(
            f"{file}: contains results for seed {others[0]}, which would be lost because this command does not "
            f"run this seed; {advice}"
        )


def _measures(experiment: str) -> list[tuple[Measure, str]]:
    pair: tuple[Metric, ...] = ("half_credit", "strict", "ties", "inverted")
    edit: tuple[Metric, ...] = ("score", "follow", "keep", "quality", "hacked")
    if experiment.startswith("editor"):
        return [(Measure(experiment, f, role), f"{role} {f}") for role in ("before", "after") for f in edit]
    if experiment.startswith("traces"):
        return [(Measure(experiment, f, role), f"{role} {f}") for role in ("sft", "rl") for f in pair]
    return [(Measure(experiment, f), f) for f in pair]


def _verdicts(experiment: str, collected: CollectedResults, seeds: Sequence[int]) -> dict[str, float]:
    """Return the fraction of correct yes/no answers by category of principle, averaged over seeds."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        report = collected.reports.get((seed, experiment))
        for verifier in report.verifiers if report else ():
            if verifier.role == "rl":
                for category, estimate in verifier.verdicts.items():
                    found.setdefault(str(category), []).append(estimate.value)
    return {category: sum(values) / len(values) for category, values in found.items()}


def _by_name(by_seed: Mapping[int, Mapping[str, tuple[Point, ...]]]) -> dict[str, dict[int, tuple[Point, ...]]]:
    names = dict.fromkeys(name for found in by_seed.values() for name in found)
    return {name: {seed: found[name] for seed, found in by_seed.items() if name in found} for name in names}
