"""What a reproduction found, as the JSON file, the page and the table say it."""

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
from editr1.reproduce.ceiling import Ceiling, ceiling
from editr1.reproduce.claims import Comparison, Outcome, outcome
from editr1.reproduce.experiments import Experiment, run_name
from editr1.reproduce.measures import Evaluated, Figure, Measure, differences
from editr1.reproduce.nested import nested_estimate
from editr1.runs.record import RunRecord, progress_key
from editr1.runs.report import EVALUATION_FILE, curves

OTHER_PEOPLE = 1_000_000
"""Added to the seed for the second set of annotators."""


class _Found(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ContrastFound(_Found):
    """A part of a claim: the difference in the figure's unit, each side's level, and what they say."""

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
    figure: str
    levels: tuple[float, float] | None
    difference: Estimate | None
    by_seed: dict[int, float]
    outcome: Outcome


class CellFound(_Found):
    """A cell over all seeds: figures of its verifier and editor, curves of its training by stage and seed, seconds."""

    name: str
    what: str
    figures: dict[str, Estimate]
    verdicts: dict[str, float]
    curves: dict[str, dict[int, tuple[Point, ...]]]
    seconds: dict[int, float]


class Reproduction(_Found):
    """Everything measured."""

    seeds: tuple[int, ...]
    budget: Budget
    command: str
    git_revisions: list[str]
    """Of the code that the runs were made with."""
    machines: list[str]
    versions: dict[str, str]
    seconds: float
    """Of all stages, services apart."""
    failed: dict[str, str]
    """Runs that ended without a result, and why; what is built on them was not measured."""
    contrasts: list[ContrastFound]
    cells: list[CellFound]
    ceilings: dict[str, Estimate]
    """Pairs on which the truth, and other people, agree with the people of the held-out pairs."""


class Collected:
    """Evaluations and records of the cells that were run, by seed and name."""

    def __init__(self) -> None:
        self.evaluated: dict[tuple[int, str], Evaluated] = {}
        self.reports: dict[tuple[int, str], ReportData] = {}
        self.curves: dict[tuple[int, str], dict[str, tuple[Point, ...]]] = {}
        self.seconds: dict[tuple[int, str], float] = {}
        self.ceilings: dict[int, Ceiling] = {}
        self.failed: dict[tuple[int, str], str] = {}
        self.records: dict[tuple[int, str], RunRecord] = {}

    def add(self, seed: int, cell: Experiment, record: RunRecord, store: ArtifactStore) -> None:
        """Read what a finished cell left in the store."""
        key = (seed, cell.name)
        self.records[key] = record
        attempts = [a for stage in record.stages.values() if stage.kind != "serve" for a in stage.attempts if a.ended]
        if attempts:
            self.seconds[key] = sum((a.ended or a.started) - a.started for a in attempts)
        self.curves[key] = {
            f"{stage.name}: {name}": points
            for stage in record.stages.values()
            for name, points in curves(
                store.get_record(progress_key(run_name(seed, cell.name), stage.name, stage.key))
            ).items()
        }
        if cell.name == "data":
            with tempfile.TemporaryDirectory() as scratch:
                folder = store.fetch(record.stages["curate"].outputs["pairs-test"], Path(scratch) / "p")
                pairs = list(read_table(folder / "pairs-test.parquet", PreferencePair))
            self.ceilings[seed] = ceiling(pairs, seed + OTHER_PEOPLE)
        stage = record.stages.get("evaluate")
        if stage is None:
            return
        with tempfile.TemporaryDirectory() as scratch:
            folder = store.fetch(stage.outputs["evaluation"], Path(scratch) / "e")
            self.reports[key] = ReportData.model_validate_json((folder / EVALUATION_FILE).read_bytes())
            self.evaluated[key] = Evaluated(
                tuple(read_items(folder / PAIRS_FILE, PairItem)), tuple(read_items(folder / EDITS_FILE, EditItem))
            )

    def of(self, seed: int, measure: Measure) -> dict[str, float] | None:
        """The measure's values by item; None where its cell was not run, or measured nothing."""
        evaluated = self.evaluated.get((seed, measure.cell))
        return (measure.values(evaluated) or None) if evaluated else None


def judge(contrast: Comparison, collected: Collected, seeds: Sequence[int], bootstrap: Bootstrap) -> ContrastFound:
    """Measure a contrast over the seeds where both sides are there."""
    figure, by_seed, levels = contrast.first.figure, {}, {}
    for seed in seeds:
        first, second = collected.of(seed, contrast.first), collected.of(seed, contrast.second)
        if first and second and (values := differences(first, second, figure)).size:
            by_seed[seed] = values
            both = first.keys() & second.keys()
            levels[seed] = [sum(side[name] for name in both) / len(both) for side in (first, second)]
    found = nested_estimate(list(by_seed.values()), bootstrap) if by_seed else None
    means = [sum(level[side] for level in levels.values()) / len(levels) for side in (0, 1)] if levels else None
    return ContrastFound(
        claim=contrast.claim,
        text=contrast.text,
        paper=contrast.paper,
        kind=contrast.kind,
        least=contrast.least,
        most=contrast.most,
        unit=contrast.unit,
        scale=contrast.scale,
        first=contrast.first.cell,
        second=contrast.second.cell,
        figure=figure,
        levels=(means[0], means[1]) if means and figure != "better" else None,
        difference=found,
        by_seed={seed: float(values.mean()) for seed, values in by_seed.items()},
        outcome=outcome(contrast, found),
    )


def describe(cell: Experiment, collected: Collected, seeds: Sequence[int], bootstrap: Bootstrap) -> CellFound:
    """The figures of one cell over the seeds."""
    figures: dict[str, Estimate] = {}
    for measure, name in _measures(cell.name):
        values = [v for seed in seeds if (v := collected.of(seed, measure))]
        if values:
            arrays = [differences(v, None, measure.figure) for v in values]
            figures[name] = nested_estimate(arrays, bootstrap)
    return CellFound(
        name=cell.name,
        what=cell.what,
        figures=figures,
        verdicts=_verdicts(cell.name, collected, seeds),
        curves=_by_name({s: collected.curves[s, cell.name] for s in seeds if (s, cell.name) in collected.curves}),
        seconds={s: collected.seconds[s, cell.name] for s in seeds if (s, cell.name) in collected.seconds},
    )


def ceilings(collected: Collected, seeds: Sequence[int], bootstrap: Bootstrap) -> dict[str, Estimate]:
    """The ceilings over the seeds whose pairs are there; empty without any."""
    found = [collected.ceilings[seed] for seed in seeds if seed in collected.ceilings]
    if not found:
        return {}
    return {name: nested_estimate([getattr(item, name) for item in found], bootstrap) for name in Ceiling._fields}


def versions_of(records: Iterable[RunRecord]) -> dict[str, str]:
    """Versions of the packages that the runs were made with; several where they differ."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.versions.items():
            found.setdefault(name, set()).add(version)
    return {name: " and ".join(sorted(several)) for name, several in found.items()}


def check_kept(file: Path, budget: Budget, seeds: Collection[int]) -> None:
    """Raise ConfigError where ``file`` holds the figures of other sizes, or of seeds that ``seeds`` leaves out."""
    if not file.is_file():
        return
    elsewhere = "they would be lost: name another --out, or delete the file"
    try:
        kept = json.loads(file.read_bytes())
        others, sizes = sorted(set(kept["seeds"]) - set(seeds)), kept["budget"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: these are not figures of a reproduction ({error}); delete the file") from None
    if sizes != budget.model_dump(mode="json"):
        raise ConfigError(f"{file}: figures of other sizes; {elsewhere}")
    if others:
        raise ConfigError(f"{file}: figures of seeds that this call leaves out, {others[0]} for one; {elsewhere}")


def _measures(cell: str) -> list[tuple[Measure, str]]:
    pair: tuple[Figure, ...] = ("half_credit", "strict", "ties", "inverted")
    edit: tuple[Figure, ...] = ("score", "follow", "keep", "quality", "hacked")
    if cell.startswith("editor"):
        return [(Measure(cell, f, role), f"{role} {f}") for role in ("before", "after") for f in edit]
    if cell.startswith("traces"):
        return [(Measure(cell, f, role), f"{role} {f}") for role in ("sft", "rl") for f in pair]
    return [(Measure(cell, f), f) for f in pair]


def _verdicts(cell: str, collected: Collected, seeds: Sequence[int]) -> dict[str, float]:
    """Right yes/no answers by category, mean over seeds."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        report = collected.reports.get((seed, cell))
        for verifier in report.verifiers if report else ():
            if verifier.role == "rl":
                for category, estimate in verifier.verdicts.items():
                    found.setdefault(str(category), []).append(estimate.value)
    return {category: sum(values) / len(values) for category, values in found.items()}


def _by_name(by_seed: Mapping[int, Mapping[str, tuple[Point, ...]]]) -> dict[str, dict[int, tuple[Point, ...]]]:
    names = dict.fromkeys(name for found in by_seed.values() for name in found)
    return {name: {seed: found[name] for seed, found in by_seed.items() if name in found} for name in names}
