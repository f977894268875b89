"""What a report shows, as types. None always means "not measured" and is shown as such."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from editr1.data.types import Bit, Category
from editr1.evaluation.metrics import Estimate, PairAccuracy

Point = tuple[float, float]


class Part(BaseModel):
    """Base of the report's types: immutable, unknown fields refused, pictures as base64 in JSON."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants"
    )


class RunHeader(Part):
    """Which run this is and how to repeat it. Times are seconds since the epoch."""

    name: str
    state: str
    seed: int | None = None
    git_revision: str | None = None
    versions: Mapping[str, str] = Field(default_factory=dict)
    command: str = ""
    machine: str = ""
    started: float | None = None
    finished: float | None = None


class KeyFigure(Part):
    """One named figure of a stage: a number with its unit, an estimate, or words."""

    name: str
    value: Estimate | float | int | str | None = None
    unit: str = ""
    digits: Annotated[int, Field(ge=0, le=6)] = 2


class StageReport(Part):
    """A stage in words and figures.

    ``curves`` maps a name to its (x, y) points in order of x; a y that is not finite leaves a gap. ``inputs`` and
    ``outputs`` map a name to an artifact digest.
    """

    name: str
    kind: str
    what: str
    state: str
    seconds: float | None = None
    attempts: int = 1
    figures: tuple[KeyFigure, ...] = ()
    curves: Mapping[str, tuple[Point, ...]] = Field(default_factory=dict)
    x_label: str = "step"
    inputs: Mapping[str, str] = Field(default_factory=dict)
    outputs: Mapping[str, str] = Field(default_factory=dict)


class TimeSpan(Part):
    """A bar of the time line. ``start`` and ``end`` in seconds since the epoch; ``level`` 0 is the stage itself."""

    name: str
    stage: str
    start: float
    end: float
    ok: bool = True
    level: Annotated[int, Field(ge=0, le=3)] = 0


class VerifierFigures(Part):
    """A verifier on the held-out pairs. All estimates in [0, 1].

    ``verdicts`` maps a category to the share of its principles answered as the truth says; ``parsed`` is the share of
    traces that parsed.
    """

    name: str
    role: Literal["sft", "rl", "other"]
    accuracy: PairAccuracy | None = None
    verdicts: Mapping[Category, Estimate] = Field(default_factory=dict)
    parsed: Estimate | None = None


class VerifierGain(Part):
    """RL-RRM minus SFT-RRM on the same pairs, in [-1, 1]; negative ties or inverted pairs are an improvement."""

    half_credit: Estimate | None = None
    strict: Estimate | None = None
    ties: Estimate | None = None
    inverted: Estimate | None = None


class ScoreParts(Part):
    """A mean score in [0, 10], its parts (shares of principles that hold, in [0, 1]) and the share of successes."""

    score: Estimate | None = None
    follow: Estimate | None = None
    keep: Estimate | None = None
    quality: Estimate | None = None
    success: Estimate | None = None


class EditorFigures(Part):
    """An editor before and after RL on the same cases; ``gain`` holds paired differences.

    ``gsb``: share of the cases whose edit has the higher score after RL, less the share where it is lower, in [-1, 1].
    ``judge`` says whose score it is: the known truth, or the verifier's own opinion, which is never called truth.
    """

    judge: Literal["truth", "verifier"]
    before: ScoreParts
    after: ScoreParts
    gain: ScoreParts
    gsb: Estimate | None = None
    failed: int = 0


class PrincipleView(Part):
    """A principle with the verifier's answer and, where known, the truth."""

    question: str
    category: Category
    said: Bit | None = None
    truth: Bit | None = None


class EditView(Part):
    """An edited picture and what was said of it. ``failure`` is the reason why there is no score."""

    image: Annotated[bytes, Field(repr=False)]
    score: float | None = None
    true_score: float | None = None
    reasoning: str = ""
    failure: str = ""
    principles: tuple[PrincipleView, ...] = ()


class GalleryCase(Part):
    """One case: its source and the edit before and after RL."""

    case_id: str
    instruction: str
    source: Annotated[bytes, Field(repr=False)]
    before: EditView | None = None
    after: EditView | None = None


Protocol = Literal["published", "ours", "both"]
"""By whose rule a public set is scored: its authors', this project's, or both side by side."""


class BenchmarkRow(Part):
    """One figure of a public set, under the authors' rule and under ours."""

    name: str
    published: Estimate | None = None
    ours: Estimate | None = None
    note: str = ""


class BenchmarkTable(Part):
    """A public set. ``scale`` and ``unit`` say how to print: 100 and "%" for shares, 1 and "" for marks."""

    name: str
    rows: tuple[BenchmarkRow, ...]
    scale: float = 1.0
    unit: str = ""
    unparsed: int = 0
    missing: int = 0
    protocol: Protocol = "both"
    notes: tuple[str, ...] = ()


class LineageNode(Part):
    """An artifact by its digest."""

    digest: str
    label: str
    kind: str = ""
    stage: str = ""


class LineageEdge(Part):
    """``child`` was made from ``parent`` (digests)."""

    parent: str
    child: str


class ReportData(Part):
    """All that a report shows. ``truth`` "none" means that no true score exists (photographs)."""

    run: RunHeader
    truth: Literal["shapes", "none"]
    stages: tuple[StageReport, ...] = ()
    timeline: tuple[TimeSpan, ...] = ()
    verifiers: tuple[VerifierFigures, ...] = ()
    verifier_gain: VerifierGain = VerifierGain()
    editor: EditorFigures | None = None
    gallery: tuple[GalleryCase, ...] = ()
    benchmarks: tuple[BenchmarkTable, ...] = ()
    nodes: tuple[LineageNode, ...] = ()
    edges: tuple[LineageEdge, ...] = ()
    notes: tuple[str, ...] = ()
