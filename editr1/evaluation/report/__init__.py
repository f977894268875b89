"""The report of a run: its data as types, and one self-contained HTML page drawn from them."""

from editr1.evaluation.report.model import (
    BenchmarkRow,
    BenchmarkTable,
    EditorFigures,
    EditView,
    GalleryCase,
    KeyFigure,
    LineageEdge,
    LineageNode,
    PrincipleView,
    ReportData,
    RunHeader,
    ScoreParts,
    StageReport,
    TimeSpan,
    VerifierFigures,
    VerifierGain,
)
from editr1.evaluation.report.render import render_report
from editr1.evaluation.report.timeline import read_spans

__all__ = [
    "BenchmarkRow",
    "BenchmarkTable",
    "EditView",
    "EditorFigures",
    "GalleryCase",
    "KeyFigure",
    "LineageEdge",
    "LineageNode",
    "PrincipleView",
    "ReportData",
    "RunHeader",
    "ScoreParts",
    "StageReport",
    "TimeSpan",
    "VerifierFigures",
    "VerifierGain",
    "read_spans",
    "render_report",
]
