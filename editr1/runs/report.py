"""Build a run's self-contained ``report.html``, and the table of its main metrics, from its record and evaluation."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from editr1.artifacts import ArtifactNotFound, ArtifactStore, open_store
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
from editr1.telemetry import json_lines

EVALUATION_FILE = "evaluation.json"


@dataclass(frozen=True)
class Report:
    """The path of a written report, and the data that the report shows."""

    path: Path
    data: ReportData

    def print_table(self, console: Console) -> None:
        """Print the main metrics with their confidence intervals and sample sizes."""
        table = Table("metric", "value", "95 % interval", "n", title=f"run {self.data.run.name}")
        for name, estimate, scale, unit in _headlines(self.data):
            if estimate is None:
                table.add_row(name, "not measured", "", "")
            else:
                low, high = (f"{bound * scale:.2f}" for bound in (estimate.low, estimate.high))
                table.add_row(name, f"{estimate.value * scale:.2f}{unit}", f"{low} to {high}", str(estimate.n))
        console.print(table)


def write_report(record: RunRecord, folder: Path, store: StoreConfig | None = None) -> Report | None:
    """Write ``report.html`` into ``folder``. Returns None if the run has no finished evaluate stage."""
    stage = next((s for s in record.stages.values() if s.kind == Kind.EVALUATE and "evaluation" in s.outputs), None)
    if stage is None:
        return None
    opened = open_store(store or StoreConfig(url=(folder.resolve() / "store").as_uri()))
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
    return measured.model_copy(
        update={
            "run": header,
            "stages": tuple(_stage(record, stage, store) for stage in _in_order(record)),
            "timeline": read_spans(spans) if spans.is_file() else (),
            "nodes": nodes,
            "edges": edges,
        }
    )


def _headlines(data: ReportData) -> list[tuple[str, Estimate | None, float, str]]:
    rows: list[tuple[str, Estimate | None, float, str]] = []
    for verifier in data.verifiers:
        accuracy = verifier.accuracy
        for label, estimate in (
            ("accuracy (half credit)", accuracy and accuracy.half_credit),
            ("accuracy (strict)", accuracy and accuracy.strict),
            ("ties", accuracy and accuracy.ties),
        ):
            rows.append((f"{verifier.name}, {label}", estimate or None, 100, " %"))
    rows.append(("accuracy gain of RL-RRM (half credit)", data.verifier_gain.half_credit, 100, " points"))
    if data.editor is not None:
        whose = "true score" if data.editor.scored_by == "truth" else "verifier's score"
        rows.append((f"editor before RL, {whose}", data.editor.before.score, 1, ""))
        rows.append((f"editor after RL, {whose}", data.editor.after.score, 1, ""))
        rows.append((f"gain of the editor, {whose}", data.editor.gain.score, 1, ""))
        rows.append((f"edits improved minus worsened by RL, {whose}", data.editor.gsb, 100, " %"))
    return rows


def _in_order(record: RunRecord) -> list[StageRecord]:
    def first(stage: StageRecord) -> float:
        return stage.attempts[0].started if stage.attempts else float("inf")

    return sorted(record.stages.values(), key=first)


def _stage(record: RunRecord, stage: StageRecord, store: ArtifactStore) -> StageReport:
    done = [a for a in stage.attempts if a.ended is not None]
    return StageReport(
        name=stage.name,
        kind=stage.kind,
        description=KINDS[Kind(stage.kind)].title,
        state=str(stage.state),
        seconds=sum((a.ended or a.started) - a.started for a in done) if done else None,
        attempts=max(1, len(stage.attempts)),
        metrics=tuple(
            StageMetric(name=name, value=int(value) if value.is_integer() else value, digits=3)
            for name, value in stage.metrics.items()
        ),
        curves=curves(store.get_record(progress_key(record.name, stage.name, stage.key))),
        inputs={**stage.inputs, "reward": stage.reward["model"]} if stage.reward else stage.inputs,
        outputs=stage.outputs,
    )


def curves(lines: bytes | None) -> dict[str, tuple[Point, ...]]:
    """Return the curve of each metric in a stage's progress lines, as points (completed steps, value).

    Metrics with fewer than three points are omitted.
    """
    points: dict[str, dict[float, float]] = defaultdict(dict)
    for item in json_lines(lines or b""):
        for name, value in item.get("metrics", {}).items():
            # If a step was repeated after a restart, its last value counts.
            points[name][float(item["done"])] = float(value)
    return {name: tuple(sorted(curve.items())) for name, curve in points.items() if len(curve) > 2}


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
