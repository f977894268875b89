"""Build a run's self-contained ``report.html``, and the table of its main metrics, from its record and evaluation."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from editr1.artifacts import ArtifactNotFound, ArtifactStore, OutageWait, open_store
from editr1.config.shapes import AnnotatorSettings
from editr1.config.store import StoreConfig
from editr1.evaluation.metrics import Estimate
from editr1.evaluation.report.model import (
    LineageEdge,
    LineageNode,
    Point,
    ReportData,
    RunHeader,
    StageMetric,
    StageReport,
)
from editr1.evaluation.report.render import render_report
from editr1.evaluation.report.timeline import read_spans
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.record import RunRecord, StageRecord, progress_key
from editr1.runs.stage_metrics import phase_curves, stage_curves, stage_metrics
from editr1.runs.summary import summary

EVALUATION_FILE = "evaluation.json"


class MainMetric(NamedTuple):
    """A main metric of a run, which is multiplied by ``scale`` for display. ``signed`` is True for a difference."""

    name: str
    estimate: Estimate | None
    scale: float = 1.0
    unit: str = ""
    signed: bool = False


@dataclass(frozen=True)
class Report:
    """The path of a written report, and the data that the report shows."""

    path: Path
    data: ReportData

    def print_table(self, console: Console) -> None:
        """Print the main metrics with their confidence intervals and sample sizes. Gains have a sign."""
        table = Table("metric", "value", "95 % interval", "n", title=f"run {self.data.run.name}")
        for row in main_metrics(self.data):
            found, sign = row.estimate, "+" if row.signed else ""
            if found is None:
                table.add_row(row.name, "not measured", "", "")
            else:
                value, low, high = (f"{x * row.scale:{sign}.2f}" for x in (found.value, found.low, found.high))
                table.add_row(row.name, f"{value}{row.unit}", f"{low} to {high}", f"{found.n:,}")
        console.print(table)


def write_report(record: RunRecord, folder: Path, store: StoreConfig | None = None) -> Report | None:
    """Write ``report.html`` into ``folder``. Returns None if the run has no finished evaluate stage."""
    stage = next((s for s in record.stages.values() if s.kind == Kind.EVALUATE and "evaluation" in s.outputs), None)
    if stage is None:
        return None
    config = store or StoreConfig(url=(folder.resolve() / "store").as_uri())
    opened = open_store(config, OutageWait(config.outage_seconds))
    data = assemble(record, opened, stage.outputs["evaluation"], folder / "spans.jsonl")
    path = folder / "report.html"
    path.write_text(render_report(data), encoding="utf-8")
    return Report(path, data)


def assemble(record: RunRecord, store: ArtifactStore, evaluation: str, spans: Path) -> ReportData:
    """Collect the data of a report: the evaluation artifact, the run's record, its timeline and the lineage of its artifacts."""
    scratch = Path(tempfile.mkdtemp())
    try:
        measured = ReportData.model_validate_json(
            (store.fetch(evaluation, scratch / "e") / EVALUATION_FILE).read_bytes()
        )
    finally:
        shutil.rmtree(scratch)
    nodes, edges = _lineage(store, record)
    header = RunHeader(
        name=record.name,
        state=str(record.state),
        seed=record.seed,
        git_revision=record.git_revision or None,
        versions=record.versions,
        command=record.command,
        machine=record.machine,
        started=record.created,
        finished=record.ended,
    )
    simulated = measured.truth == "shapes" and bool(measured.verifiers)
    data = measured.model_copy(
        update={
            "run": header,
            "flip_rate": AnnotatorSettings().flip_rate if simulated else None,
            "stages": tuple(_stage(record, stage, store, measured) for stage in _in_order(record)),
            "timeline": read_spans(spans) if spans.is_file() else (),
            "nodes": nodes,
            "edges": edges,
        }
    )
    return data.model_copy(update={"summary": summary(record, data)})


def main_metrics(data: ReportData) -> list[MainMetric]:
    """Return the main metrics of an evaluation: the accuracy of each verifier, the quality of the editors, and the gains."""
    rows = []
    for verifier in data.verifiers:
        accuracy = verifier.accuracy
        for label, estimate in (
            ("accuracy (half credit)", accuracy and accuracy.half_credit),
            ("accuracy (strict)", accuracy and accuracy.strict),
            ("ties", accuracy and accuracy.ties),
        ):
            rows.append(MainMetric(f"{verifier.name}, {label}", estimate or None, 100, " %"))
        if accuracy is not None and accuracy.failed:
            with_failed = accuracy.half_credit_with_failed
            name = f"{verifier.name}, accuracy (half credit), {accuracy.failed:,} failed pairs counted as wrong"
            rows.append(MainMetric(name, with_failed, 100, " %"))
    if any(verifier.role == "rl" for verifier in data.verifiers):
        gain = data.verifier_gain.half_credit
        rows.append(MainMetric("accuracy gain of RL-RRM (half credit)", gain, 100, " points", signed=True))
    if data.editor is not None:
        whose = "true score" if data.editor.scored_by == "truth" else "verifier's score"
        rows += [
            MainMetric(f"editor before RL, {whose}", data.editor.before.score, unit=" of 10"),
            MainMetric(f"editor after RL, {whose}", data.editor.after.score, unit=" of 10"),
            MainMetric(f"gain of the editor, {whose}", data.editor.gain.score, unit=" of 10", signed=True),
            MainMetric(f"edits improved minus worsened by RL, {whose}", data.editor.gsb, 100, " points", signed=True),
        ]
    return rows


def _in_order(record: RunRecord) -> list[StageRecord]:
    def first(stage: StageRecord) -> float:
        return stage.attempts[0].started if stage.attempts else float("inf")

    return sorted(record.stages.values(), key=first)


def _stage(record: RunRecord, stage: StageRecord, store: ArtifactStore, measured: ReportData) -> StageReport:
    done = [a for a in stage.attempts if a.ended is not None]
    found = phase_curves(store.get_record(progress_key(record.name, stage.name, stage.key)))
    return StageReport(
        name=stage.name,
        kind=stage.kind,
        description=KINDS[Kind(stage.kind)].title,
        state=str(stage.state),
        seconds=sum((a.ended or a.started) - a.started for a in done) if done else None,
        attempts=max(1, len(stage.attempts)),
        metrics=_evaluated(measured) if stage.kind == Kind.EVALUATE else stage_metrics(stage, found),
        curves=stage_curves(stage, found),
        inputs={**stage.inputs, "reward": stage.reward["model"]} if stage.reward else stage.inputs,
        outputs=stage.outputs,
    )


def _evaluated(data: ReportData) -> tuple[StageMetric, ...]:
    """Return the main metrics as metrics of the evaluate stage, with their intervals."""

    def scaled(found: Estimate, scale: float) -> Estimate:
        values = {name: getattr(found, name) * scale for name in ("value", "low", "high")}
        return found.model_copy(update=values)

    return tuple(
        StageMetric(name=row.name, value=scaled(row.estimate, row.scale), unit=row.unit, signed=row.signed)
        for row in main_metrics(data)
        if row.estimate is not None
    )


def curves(stage: StageRecord, lines: bytes | None) -> dict[str, tuple[Point, ...]]:
    """Return the curve of each metric in a stage's progress lines, as points (completed steps, value).

    A curve is named after its metric. If the name of the phase differs from the kind of stage, it precedes the
    metric's name.
    """
    return {
        name if phase == stage.kind else f"{phase}: {name}": points
        for (phase, name), points in phase_curves(lines).items()
    }


def _lineage(store: ArtifactStore, record: RunRecord) -> tuple[tuple[LineageNode, ...], tuple[LineageEdge, ...]]:
    nodes: dict[str, LineageNode] = {}
    edges: list[LineageEdge] = []
    names = {digest: f"{s.name}/{name}" for s in record.stages.values() for name, digest in s.outputs.items()}
    waiting = sorted(names)
    while waiting:
        digest = waiting.pop()
        if digest in nodes:
            continue
        try:
            manifest = store.manifest(digest)
        except ArtifactNotFound:
            nodes[digest] = LineageNode(digest=digest, label="not in this store")
            continue
        label = names.get(digest, manifest.stage)
        nodes[digest] = LineageNode(digest=digest, label=label, kind=manifest.kind, stage=manifest.stage)
        edges += [LineageEdge(parent=parent, child=digest) for parent in manifest.parents]
        waiting += manifest.parents
    return tuple(nodes.values()), tuple(edges)
