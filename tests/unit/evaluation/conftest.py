"""Sample images, metrics and a complete report like that of a run on the shapes dataset."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from editr1.data.types import Category
from editr1.evaluation.metrics import gsb, mean_estimate, pair_accuracy, paired_difference
from editr1.evaluation.report import (
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

COLOURS = {"red": (214, 64, 58), "blue": (58, 102, 196), "green": (64, 158, 92), "yellow": (236, 190, 62)}
START = 1_790_000_000.0


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _scene(cells: dict[int, tuple[str, str]], ground: tuple[int, int, int] = (210, 210, 205)) -> Image.Image:
    image = Image.new("RGB", (32, 32), ground)
    draw = ImageDraw.Draw(image)
    for cell, (colour, shape) in cells.items():
        x, y = 16 * (cell % 2) + 3, 16 * (cell // 2) + 3
        if shape == "square":
            draw.rectangle((x, y, x + 9, y + 9), fill=COLOURS[colour])
        elif shape == "circle":
            draw.ellipse((x, y, x + 9, y + 9), fill=COLOURS[colour])
        else:
            draw.polygon([(x + 5, y), (x + 10, y + 9), (x, y + 9)], fill=COLOURS[colour])
    return image


@pytest.fixture
def png() -> bytes:
    """Return a 32 x 32 image of the shapes dataset as PNG."""
    return _encoded(_scene({0: ("red", "square"), 3: ("blue", "circle")}))


@cache
def _photo(seed: int, size: tuple[int, int] = (780, 520)) -> bytes:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    waves = [128 + 100 * np.sin(x / (90 + 40 * c) + rng.random() * 6) * np.cos(y / (120 - 20 * c)) for c in range(3)]
    return _encoded(Image.fromarray(np.stack(waves, -1).astype(np.uint8)))


def _principles(verdicts: list[int], truth: list[int] | None) -> tuple[PrincipleView, ...]:
    questions = [
        ("top-left is yellow square?", Category.FOLLOW),
        ("top-right kept?", Category.KEEP),
        ("bottom-left kept?", Category.KEEP),
        ("bottom-right kept?", Category.KEEP),
        ("background kept?", Category.KEEP),
        ("picture clean?", Category.QUALITY),
    ]
    return tuple(
        PrincipleView(question=q, category=c, verdict=s, truth=None if truth is None else truth[i])
        for i, ((q, c), s) in enumerate(zip(questions, verdicts, strict=True))
    )


def _gallery(truth: bool) -> tuple[GalleryCase, ...]:
    reasoning = (
        "top-left red square -> red square, no;\ntop-right kept empty, yes;\nbottom-left kept empty, yes;\n"
        "bottom-right kept blue circle, yes;\nbackground kept grey, yes;\npicture clean, yes;"
    )
    cases = []
    for i in range(3):
        keep = {3: ("blue", "circle"), **({1: ("green", "triangle")} if i else {})}
        source = _scene({0: ("red", "square"), **keep})
        worse = source.filter(ImageFilter.GaussianBlur(0.7 * i)) if i else source
        better = _scene({0: ("yellow", "square"), **keep})
        source_png, worse_png, better_png = map(_encoded, (source, worse, better))
        if not truth:
            source_png, worse_png, better_png = _photo(i), _photo(i + 10), _photo(i + 20)
        cases.append(
            GalleryCase(
                case_id=f"eval-{i:05d}",
                instruction="make the red square yellow" if truth else "turn the image black and white",
                source=source_png,
                before=EditView(
                    image=worse_png,
                    score=5.5,
                    true_score=2.5 if truth else None,
                    reasoning=reasoning,
                    principles=_principles([1 if i == 1 else 0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1] if truth else None),
                ),
                after=EditView(
                    image=better_png,
                    score=9.0,
                    true_score=10.0 if truth else None,
                    reasoning=reasoning.replace("-> red square, no", "-> yellow square, yes"),
                    principles=_principles([1] * 6, [1] * 6 if truth else None),
                )
                if i != 2
                else EditView(image=better_png, failure="unparsed: no <score>"),
            )
        )
    return tuple(cases)


def _curve(n: int, low: float, high: float, noise: float, seed: int) -> tuple[tuple[float, float], ...]:
    rng = np.random.default_rng(seed)
    return tuple(
        (float(i), low + (high - low) * (1 - math.exp(-3 * i / n)) + noise * float(rng.normal())) for i in range(n)
    )


@cache
def make_report(*, truth: bool = True, measured: bool = True, name: str = "quickstart") -> ReportData:
    """Make the report of a finished run, or of a run that has just started if ``measured`` is False."""
    run = RunHeader(
        name=name,
        state="done" if measured else "running",
        seed=7,
        git_revision="3f9c2ab81d7e",
        versions={"editr1": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "transformers": "5.24.0", "trl": "1.16.0"},
        command=f"editr1 run manifests/samples/{name}.yaml --set run.seed=7",
        machine="2 cores, Linux x86_64",
        started=START,
        finished=START + 312 if measured else None,
    )
    if not measured:
        return ReportData(run=run, truth="shapes" if truth else "none")
    rng = np.random.default_rng(0)
    human = rng.normal(1.0, 1.6, 1000)
    sft_gap = np.round(human * 0.4 + rng.normal(0, 1.2, 1000) + 0.4, 1)
    rl_gap = np.round(human * 0.9 + rng.normal(0, 0.9, 1000) + 0.8, 1)
    zero = [0.0] * 1000
    half = [np.where(g > 0, 1.0, np.where(g == 0, 0.5, 0.0)) for g in (sft_gap, rl_gap)]
    strict = [(g > 0).astype(float) for g in (sft_gap, rl_gap)]
    before, after = rng.normal(6.6, 2.9, 1000).clip(0, 10), rng.normal(8.6, 1.9, 1000).clip(0, 10)

    def parts(values: np.ndarray) -> ScoreParts:
        return ScoreParts(
            score=mean_estimate(values),
            follow=mean_estimate(values / 10),
            keep=mean_estimate(values / 10),
            quality=mean_estimate(values / 10),
            success=mean_estimate((values >= 9).astype(float)),
        )

    gain = ScoreParts(
        score=paired_difference(after, before),
        follow=paired_difference(after / 10, before / 10),
        keep=paired_difference(after / 10, before / 10),
        quality=paired_difference(after / 10, before / 10),
        success=paired_difference((after >= 9).astype(float), (before >= 9).astype(float)),
    )
    verdicts = (
        {
            c: mean_estimate((rng.random(3000) < p).astype(float))
            for c, p in zip(Category, (0.93, 0.9, 0.98), strict=True)
        }
        if truth
        else {}
    )
    if not truth:
        score_only = ScoreParts(score=mean_estimate(before[:60]))
        editor = EditorMetrics(
            scored_by="verifier",
            before=score_only,
            after=ScoreParts(score=mean_estimate(after[:60])),
            gain=ScoreParts(score=paired_difference(after[:60], before[:60])),
            failed=3,
        )
    else:
        editor = EditorMetrics(
            scored_by="truth",
            before=parts(before),
            after=parts(after),
            gain=gain,
            gsb=gsb(after, before),
            unchanged=mean_estimate([4.0] * 1000),
            num_cases=1000,
        )
    digest = {
        k: "sha256:" + f"{i:02x}" * 32
        for i, k in enumerate(("base", "editor", "cases", "rows", "pairs", "sft", "rl", "tuned"), 161)
    }
    labels = {
        "base": "base verifier", "editor": "base editor", "cases": "cases", "rows": "SFT rows",
        "pairs": "preference pairs", "sft": "SFT-RRM", "rl": "RL-RRM", "tuned": "editor after RL",
    }  # fmt: skip
    links = [("cases", "rows"), ("cases", "pairs"), ("base", "sft"), ("rows", "sft"), ("sft", "rl"), ("pairs", "rl"),
             ("rl", "tuned"), ("editor", "tuned"), ("cases", "tuned")]  # fmt: skip
    durations = {"curate": 34.0, "sft": 62.0, "gcpo": 96.0, "serve": 84.0, "grpo": 76.0, "evaluate": 38.0}
    spans, at = [], START
    for stage, duration in durations.items():
        spans.append(TimeSpan(name=stage, stage=stage, start=at, end=at + duration))
        spans.append(TimeSpan(name="load", stage=stage, start=at, end=at + 4, level=1))
        spans.append(TimeSpan(name="train", stage=stage, start=at + 5, end=at + duration - 4, level=1))
        at += 4 if stage == "serve" else duration
    what = {
        "curate": "Write principles for 1,200 cases and traces for 6,000 edits with four models, and select per edit the "
        "trace that agrees best with the gold labels.",
        "sft": "Train the base verifier on the selected traces.",
        "gcpo": "Score both edits of 800 preference pairs eight times each, and reinforce the traces that score the "
        "preferred edit higher.",
        "serve": "Serve the RL-RRM over HTTP to the training of the editor.",
        "grpo": "Edit each case 16 times, score every edit with the reward service, and update the editor.",
        "evaluate": "Score 1,000 held-out pairs with both verifiers and 1,000 held-out cases with both editors.",
    }
    curves = {
        "sft": (StageCurve(name="loss", points=_curve(450, 2.2, 0.35, 0.05, 1), unit="nats per token"),
                StageCurve(name="parse rate", points=_curve(9, 0.2, 1.0, 0.0, 2))),
        "gcpo": (StageCurve(name="pair win rate", points=_curve(90, 0.78, 0.9, 0.02, 3)),
                 StageCurve(name="tie rate", points=_curve(90, 0.12, 0.05, 0.01, 4)),
                 StageCurve(name="trace length", points=_curve(90, 74.0, 76.0, 0.5, 5), unit="tokens")),
        "grpo": (StageCurve(name="reward", points=_curve(80, 6.1, 8.4, 0.25, 6), x_label="iteration"),
                 StageCurve(name="KL", points=_curve(80, 0.0, 0.008, 0.0004, 7), x_label="iteration")),
    }  # fmt: skip
    metrics = {
        "curate": (StageMetric(name="SFT rows", value=6000),
                   StageMetric(name="agreement with gold", value=0.962, digits=3)),
        "sft": (StageMetric(name="tokens per second", value=18234), StageMetric(name="final loss", value=0.351, digits=3)),
        "gcpo": (StageMetric(name="pairs without signal", value=31.4, unit="%", digits=1),
                 StageMetric(name="clip fraction", value=None)),
        "serve": (StageMetric(name="edits scored", value=10240), StageMetric(name="p95 latency", value=0.41, unit=" s")),
        "grpo": (StageMetric(name="images per second", value=121.0, digits=0), StageMetric(name="failed scores", value=0)),
        "evaluate": (StageMetric(name="gain", value=gain.score, digits=2),),
    }  # fmt: skip
    return ReportData(
        run=run,
        truth="shapes" if truth else "none",
        stages=tuple(
            StageReport(
                name=k.capitalize() if k not in ("sft", "gcpo", "grpo") else k.upper(), kind=k, description=what[k],
                state="done", seconds=durations[k], metrics=metrics[k], curves=curves.get(k, ()),
                inputs={"base": digest["base"]} if k == "sft" else {},
                outputs={"model": digest["sft"]} if k == "sft" else {},
            )
            for k in durations
        ),
        timeline=tuple(spans),
        verifiers=(
            VerifierMetrics(name="SFT-RRM", role="sft", accuracy=pair_accuracy(list(sft_gap), zero), verdicts=verdicts,
                            parsed=mean_estimate([1.0] * 1990 + [0.0] * 10)),
            VerifierMetrics(name="RL-RRM", role="rl", accuracy=pair_accuracy(list(rl_gap), zero), verdicts=verdicts,
                            parsed=mean_estimate([1.0] * 2000)),
        ),
        verifier_gain=VerifierGain(
            half_credit=paired_difference(half[1], half[0]), strict=paired_difference(strict[1], strict[0]),
            ties=paired_difference((rl_gap == 0).astype(float), (sft_gap == 0).astype(float)),
            inverted=paired_difference((rl_gap < 0).astype(float), (sft_gap < 0).astype(float)),
        ),
        label_agreement=mean_estimate([1.0] * 938 + [0.0] * 62) if truth else None,
        flip_rate=0.05 if truth else None,
        summary=(SummaryLine(title="What was trained", text="a verifier and an editor"),),
        editor=editor,
        gallery=_gallery(truth),
        benchmarks=(
            BenchmarkTable(
                name="EditScore's EditReward-Bench", scale=100.0, unit="%", unparsed=4,
                rows=(BenchmarkRow(name="overall", published=mean_estimate([1.0] * 70 + [0.0] * 30),
                                   ours=mean_estimate([1.0] * 70 + [0.5] * 6 + [0.0] * 24), note="mean of 13 types"),
                      BenchmarkRow(name="consistency")),
            ),
        ),
        nodes=tuple(LineageNode(digest=d, label=labels[k], kind="model", stage="sft") for k, d in digest.items()),
        edges=tuple(LineageEdge(parent=digest[a], child=digest[b]) for a, b in links),
    )  # fmt: skip


@pytest.fixture(scope="session")
def report_of() -> Callable[..., ReportData]:
    """Return the function :func:`make_report`."""
    return make_report


@pytest.fixture
def report() -> ReportData:
    """Return the report of a finished run on the shapes dataset."""
    return make_report()
