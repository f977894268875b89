"""The data of a report. A value that was not measured is None, and is displayed as "not measured"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from editr1.data.types import Bit, Category
from editr1.evaluation.metrics import Estimate, PairAccuracy

Point = tuple[float, float]


class Part(BaseModel):
    """Base class of the report's data.

    Instances are immutable, and unknown fields are rejected. In JSON, images are base64 strings, and some fields have
    an older name, so that stored evaluations can still be read.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_bytes="base64",
        val_json_bytes="base64",
        ser_json_inf_nan="constants",
        validate_by_name=True,
        serialize_by_alias=True,
    )


class RunHeader(Part):
    """The run that the report describes, and the command that reproduces it.

    ``started`` and ``finished`` are seconds since the epoch.
    """

    name: str
    state: str
    seed: int | None = None
    git_revision: str | None = None
    versions: Mapping[str, str] = Field(default_factory=dict)
    command: str = ""
    machine: str = ""
    started: float | None = None
    finished: float | None = None


class StageMetric(Part):
    """A named metric of a stage: a number with its unit, an estimate, or text.

    ``note`` describes the items over which it was averaged or counted. ``signed`` is True for a difference, which is
    shown with its sign.
    """

    name: str
    value: Estimate | float | int | str | None = None
    unit: str = ""
    digits: Annotated[int, Field(ge=0, le=6)] = 2
    note: str = ""
    signed: bool = False


class StageCurve(Part):
    """A metric during a stage.

    Attributes:
        name: Title of the metric.
        points: Points (x, y), sorted by x. The curve has a gap where y is not finite.
        unit: Unit of y.
        phase: Phase of the stage in which the metric was recorded; empty if the stage has only one phase.
        x_label: What x counts, such as "step".
    """

    name: str
    points: tuple[Point, ...]
    unit: str = ""
    phase: str = ""
    x_label: str = "step"


class StageReport(Part):
    """Description and metrics of a stage.

    Attributes:
        name: Name of the stage in the run.
        kind: Kind of the stage, such as "sft" or "evaluate".
        description: Short description of what the stage does. Its name in JSON is ``what``.
        state: State of the stage.
        seconds: Total run time of all attempts in seconds.
        attempts: Number of attempts to run the stage.
        metrics: Final metrics of the stage.
        curves: Metrics during the stage, with the most important ones first.
        inputs: Digests of the input artifacts, by the name of the input.
        outputs: Digests of the output artifacts, by the name of the output.
    """

    name: str
    kind: str
    description: Annotated[str, Field(alias="what")]
    state: str
    seconds: float | None = None
    attempts: int = 1
    metrics: tuple[StageMetric, ...] = ()
    curves: tuple[StageCurve, ...] = ()
    inputs: Mapping[str, str] = Field(default_factory=dict)
    outputs: Mapping[str, str] = Field(default_factory=dict)


class TimeSpan(Part):
    """A bar of the timeline, which shows a stage or a part of a stage.

    ``start`` and ``end`` are seconds since the epoch. ``level`` is the nesting depth: 0 for a stage, 1 to 3 for its
    parts. ``ok`` is False if the stage or part failed.
    """

    name: str
    stage: str
    start: float
    end: float
    ok: bool = True
    level: Annotated[int, Field(ge=0, le=3)] = 0


class VerifierMetrics(Part):
    """Metrics of a verifier on held-out preference pairs. All estimates are in [0, 1].

    Attributes:
        name: Name of the verifier in the report.
        role: Training stage that produced the verifier: "sft", "rl" or "other".
        accuracy: Pairwise accuracy, or None if no pair has scores of both edits.
        num_pairs: Number of pairs in which people preferred one edit, whether they were scored or not.
        failed_pairs: Number of these pairs in which at least one edit has no score.
        num_edits: Number of edits that were sent to the verifier for scoring, which is two per pair.
        failures: Number of edits without a score, by cause, such as "unparsed".
        first_failure: Reason why the first of these edits has no score.
        verdicts: Fraction of the verifier's yes/no answers that agree with the ground truth, by category of principle.
        parsed: Fraction of the verifier's traces that could be parsed.
    """

    name: str
    role: Literal["sft", "rl", "other"]
    accuracy: PairAccuracy | None = None
    num_pairs: int = 0
    failed_pairs: int = 0
    num_edits: int = 0
    failures: Mapping[str, int] = Field(default_factory=dict)
    first_failure: str = ""
    verdicts: Mapping[Category, Estimate] = Field(default_factory=dict)
    parsed: Estimate | None = None


class VerifierGain(Part):
    """Differences in metrics between the verifier after RL (RL-RRM) and the verifier after SFT (SFT-RRM).

    Both verifiers scored the same pairs. The differences are in [-1, 1]. For ``ties`` and ``inverted``, a negative
    difference is an improvement.
    """

    half_credit: Estimate | None = None
    strict: Estimate | None = None
    ties: Estimate | None = None
    inverted: Estimate | None = None


class ScoreParts(Part):
    """Means over edits, or differences of such means: the score, its parts and the fraction of successful edits.

    The score is in [0, 10]. The parts are the fractions of satisfied principles per category: ``follow`` (Instruction
    Following), ``keep`` (Feature Preservation) and ``quality`` (Image Quality).
    """

    score: Estimate | None = None
    follow: Estimate | None = None
    keep: Estimate | None = None
    quality: Estimate | None = None
    success: Estimate | None = None


class EditorMetrics(Part):
    """Metrics of an editor before and after RL on the same cases.

    Attributes:
        scored_by: Source of the scores: "truth" for the ground truth, or "verifier". Its name in JSON is ``judge``.
        before: Mean scores before RL.
        after: Mean scores after RL.
        gain: Mean of the paired differences: the score after RL minus the score before RL of each case.
        gsb: Fraction of cases with a higher score after RL minus fraction of cases with a lower score, in [-1, 1].
        unchanged: Mean ground-truth score of the source images: the score of an editor that does nothing.
        num_cases: Number of cases, including those that are excluded.
        failed: Number of cases that are excluded because at least one of the two edits has no score.
        failures: Number of edits without a score, by cause, such as "unparsed".
    """

    scored_by: Annotated[Literal["truth", "verifier"], Field(alias="judge")]
    before: ScoreParts
    after: ScoreParts
    gain: ScoreParts
    gsb: Estimate | None = None
    unchanged: Estimate | None = None
    num_cases: int = 0
    failed: int = 0
    failures: Mapping[str, int] = Field(default_factory=dict)


class PrincipleView(Part):
    """A principle, the verifier's answer and the ground-truth answer. An answer is None if it is unknown.

    The name of ``verdict`` in JSON is ``said``.
    """

    question: str
    category: Category
    verdict: Annotated[Bit | None, Field(alias="said")] = None
    truth: Bit | None = None


class EditView(Part):
    """An edited image, its scores and the verifier's reasoning. ``failure`` is the reason why ``score`` is missing."""

    image: Annotated[bytes, Field(repr=False)]
    score: float | None = None
    true_score: float | None = None
    reasoning: str = ""
    failure: str = ""
    principles: tuple[PrincipleView, ...] = ()


class GalleryCase(Part):
    """One case: its source image and its edits before and after RL."""

    case_id: str
    instruction: str
    source: Annotated[bytes, Field(repr=False)]
    before: EditView | None = None
    after: EditView | None = None


Protocol = Literal["published", "ours", "both"]
"""Rules for scoring a public benchmark: "published" (its authors' rule), "ours" (this project's rule) or "both"."""


class BenchmarkRow(Part):
    """One metric of a public benchmark, under the authors' rule and under this project's rule."""

    name: str
    published: Estimate | None = None
    ours: Estimate | None = None
    note: str = ""


class BenchmarkTable(Part):
    """Results of a public benchmark.

    Attributes:
        name: Name of the benchmark and of the evaluated model.
        rows: One row per metric.
        scale: Factor by which metrics are multiplied for display: 100 for fractions, 1 for ratings.
        unit: Unit that is displayed after the metrics' names.
        unparsed: Number of edits that the judge did not rate, because it refused or its answer could not be parsed.
        missing: Number of items without a score or an edited image.
        num_edits: Number of edits that were to be scored by the verifier or the judge.
        failures: Number of these edits without a score, by cause: "unparsed", "refused" (by the judge), "no principles"
            or another cause of a ScoreFailure.
        first_failure: Reason why the first of these edits has no score.
        protocol: Whether the table displays metrics under the authors' rule, this project's rule or both.
        notes: Notes that are displayed below the table.
    """

    name: str
    rows: tuple[BenchmarkRow, ...]
    scale: float = 1.0
    unit: str = ""
    unparsed: int = 0
    missing: int = 0
    num_edits: int = 0
    failures: Mapping[str, int] = Field(default_factory=dict)
    first_failure: str = ""
    protocol: Protocol = "both"
    notes: tuple[str, ...] = ()


class LineageNode(Part):
    """An artifact in the lineage graph."""

    digest: str
    label: str
    kind: str = ""
    stage: str = ""


class LineageEdge(Part):
    """The artifact ``child`` was made from the artifact ``parent``. Both artifacts are given by their digests."""

    parent: str
    child: str


class SummaryLine(Part):
    """An answer to one of the first questions that a reader has about a run, such as what was trained."""

    title: str
    text: str


class ReportData(Part):
    """All data of a report.

    Attributes:
        run: The run that the report describes.
        truth: Source of the ground truth: "shapes" for the shapes dataset, or "none".
        summary: Answers to the first questions that a reader has about the run.
        stages: The stages of the run, in the order in which they started.
        timeline: The stages and their parts over time.
        verifiers: Metrics of the verifiers.
        verifier_gain: Differences in metrics between the verifier after RL and the verifier after SFT.
        label_agreement: Accuracy of the ground truth on the same preference pairs, with half credit for ties: no verifier
            can be expected to be more accurate than this.
        flip_rate: Fraction of the preferences that are wrong on purpose, if they are simulated.
        editor: Metrics of the editor before and after RL.
        gallery: Example cases.
        benchmarks: Results on public benchmarks.
        nodes: Artifacts of the run, and the artifacts from which they were made.
        edges: Links between these artifacts.
        notes: Remarks that are shown at the top.
    """

    run: RunHeader
    truth: Literal["shapes", "none"]
    summary: tuple[SummaryLine, ...] = ()
    stages: tuple[StageReport, ...] = ()
    timeline: tuple[TimeSpan, ...] = ()
    verifiers: tuple[VerifierMetrics, ...] = ()
    verifier_gain: VerifierGain = VerifierGain()
    label_agreement: Estimate | None = None
    flip_rate: float | None = None
    editor: EditorMetrics | None = None
    gallery: tuple[GalleryCase, ...] = ()
    benchmarks: tuple[BenchmarkTable, ...] = ()
    nodes: tuple[LineageNode, ...] = ()
    edges: tuple[LineageEdge, ...] = ()
    notes: tuple[str, ...] = ()
