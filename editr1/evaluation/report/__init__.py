"""The report of a run: its data model, and a self-contained HTML page rendered from it."""

from editr1.evaluation.report.model import (
    BenchmarkRow,
    BenchmarkTable,
    EditorMetrics,
    EditView,
    GalleryCase,
    LineageEdge,
    LineageNode,
    PrincipleView,
    ReportData,
    RunHeader,
    ScoreParts,
    StageCurve,
    StageMetric,
    StageReport,
    SummaryLine,
    TimeSpan,
    VerifierGain,
    VerifierMetrics,
)
from editr1.evaluation.report.render import render_report
from editr1.evaluation.report.timeline import read_spans

__all__ = [
    "BenchmarkRow",
    "BenchmarkTable",
    "EditView",
    "EditorMetrics",
    "GalleryCase",
    "LineageEdge",
    "LineageNode",
    "PrincipleView",
    "ReportData",
    "RunHeader",
    "ScoreParts",
    "StageCurve",
    "StageMetric",
    "StageReport",
    "SummaryLine",
    "TimeSpan",
    "VerifierGain",
    "VerifierMetrics",
    "read_spans",
    "render_report",
]
