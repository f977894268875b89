"""What the report says about the stages of a run, and the table of main metrics on the terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from editr1.cli.view import format_metrics
from editr1.evaluation.metrics import Estimate, PairAccuracy
from editr1.evaluation.report.model import (
    EditorMetrics,
    LineageNode,
    ReportData,
    RunHeader,
    ScoreParts,
    StageReport,
    VerifierGain,
    VerifierMetrics,
)
from editr1.runs.record import Missing, RunRecord, StageRecord
from editr1.runs.report import Report, curves
from editr1.runs.stage_metrics import METRICS, phase_curves, stage_curves, stage_metrics
from editr1.runs.summary import summary


def lines(phase: str, values: dict[str, list[float]]) -> bytes:
    count = len(next(iter(values.values())))
    found = [
        {"t": i, "phase": phase, "done": i + 1, "total": count, "metrics": {name: v[i] for name, v in values.items()}}
        for i in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in found).encode()


def estimate(value: float, half_width: float, n: int = 1000) -> Estimate:
    return Estimate(value=value, low=value - half_width, high=value + half_width, n=n)


CURATE = StageRecord(
    name="curate",
    kind="curate",
    config={"labeller": "shapes"},
    outputs={"rows": "sha256:rows"},
    metrics={"cases": 5695.0, "rows": 6000.0, "traces": 18000.0, "trace_parse_rate": 1.0, "agreement": 0.8914,
             "requests": 20507.0, "prompt_tokens": 17009805.0, "completion_tokens": 4085488.0, "dropped: no trace": 3.0},
)  # fmt: skip
SFT = StageRecord(
    name="sft",
    kind="sft",
    inputs={"rows": "sha256:rows", "model": "sha256:base"},
    metrics={"steps": 340.0, "loss": 0.0697},
)
GCPO = StageRecord(
    name="gcpo",
    kind="gcpo",
    config={"pairs_per_rollout": 12},
    inputs={"model": "sha256:sft"},
    metrics={"steps": 90.0, "loss": 1e-9, "pairs": 960.0, "no_signal_rate": 0.125},
)
GRPO = StageRecord(
    name="grpo",
    kind="grpo",
    config={"cases_per_iteration": 8, "group_size": 16},
    reward={"model": "sha256:sft"},
    inputs={"editor": "hub:black-forest-labs/FLUX.1-Kontext-dev"},
    metrics={"iterations": 60.0, "reward_first": 6.657, "reward_last": 8.593, "failed": 51.0, "zero_spread": 14 / 480},
)


def notes(stage: StageRecord, progress: bytes = b"") -> dict[str, tuple[object, str, str]]:
    found = stage_metrics(stage, phase_curves(progress))
    return {metric.name: (metric.value, metric.unit, metric.note) for metric in found}


def test_metrics_of_grpo_say_out_of_how_many() -> None:
    found = notes(GRPO)
    assert found["scores that failed"] == (51, "", "of 7680 scores")
    assert found["groups without a training signal"][1:] == (" %", "14 of 480 groups of 16 samples")
    assert found["mean reward at the start"] == (6.657, " of 10", "mean of the first 5 of 60 iterations")


def test_metrics_of_trainings_say_over_how_many_steps_they_were_averaged() -> None:
    progress = lines("gcpo", {"no_signal_rate": [0.1] * 90, "loss": [0.0] * 90})
    found = notes(GCPO, progress)
    assert found["pairs without a training signal"] == (12.5, " %", "mean of the last 9 of 90 steps, each of 12 pairs")
    assert found["training pairs with a preference"] == (960, "", "")
    assert notes(SFT, lines("sft", {"loss": [1.0] * 340}))["loss"][2] == "mean of the last 34 of 340 steps"


@pytest.mark.parametrize(
    ("labeller", "note"),
    [("shapes", "estimated from the length of the texts"), ("endpoint", "as reported by the endpoints")],
)
def test_tokens_of_simulated_labellers_are_called_estimates(labeller: str, note: str) -> None:
    found = notes(CURATE.model_copy(update={"config": {"labeller": labeller}}))
    assert found["prompt tokens"] == (17009805, "", note)
    assert found["traces that could be parsed"] == (100.0, " %", "of 18\u202f000 traces")
    assert list(found)[-1] == "dropped: no trace", "a metric without a title is shown under its own name, last"


def test_each_phase_has_curves_of_its_own_and_those_that_matter_are_first() -> None:
    progress = b"".join(
        lines(phase, {"requests": [1.0, 2.0, 3.0], "failed": [0.0, k, k]}) for k, phase in enumerate("ab")
    )
    found = stage_curves(CURATE, phase_curves(progress))
    assert [(curve.phase, curve.name, curve.x_label) for curve in found] == [
        (phase, name, "item") for phase in "ab" for name in ("requests to labelling models", "failed items")
    ]
    assert found[0].points == ((1.0, 1.0), (2.0, 2.0), (3.0, 3.0))
    shuffled = {"learning_rate": [1.0] * 3, "pair_tie_rate": [0.1] * 3, "pair_half_credit": [0.5, 0.6, 0.7]}
    ordered = stage_curves(GCPO, phase_curves(lines("gcpo", shuffled)))
    assert [curve.name for curve in ordered] == [
        "comparisons won (a tie counts half)",
        "comparisons tied",
        "learning rate",
    ]
    assert ordered[0].unit == "%" and ordered[0].phase == ""
    assert [y for _, y in ordered[0].points] == [50.0, 60.0, 70.0]
    assert set(curves(CURATE, progress)) == {"a: requests", "a: failed", "b: requests", "b: failed"}
    assert set(curves(GCPO, lines("gcpo", shuffled))) == set(shuffled)


def test_every_metric_that_a_training_reports_has_a_title() -> None:
    from editr1.verifier.gcpo_metrics import rates

    counts = ("pairs", "traces", "comparisons", "parsed_winner", "parsed_loser")
    answers = (f"answers_{category}" for category in ("follow", "keep", "quality"))
    assert set(rates(dict.fromkeys((*counts, *answers), 1.0))) <= METRICS["gcpo"].keys()


def data(truth: str = "shapes") -> ReportData:
    def accuracy(half: float) -> PairAccuracy:
        half_credit, other = estimate(half, 0.02), estimate(0.1, 0.02)
        return PairAccuracy(strict=other, half_credit=half_credit, ties=other, inverted=other, n=1000)

    return ReportData(
        run=RunHeader(name="run", state="done", machine="2 cores, a processor"),
        truth=truth,  # type: ignore[arg-type]
        flip_rate=0.05 if truth == "shapes" else None,
        verifiers=(
            VerifierMetrics(name="SFT-RRM", role="sft", accuracy=accuracy(0.7825)),
            VerifierMetrics(name="RL-RRM", role="rl", accuracy=accuracy(0.841)),
        ),
        verifier_gain=VerifierGain(half_credit=estimate(0.0585, 0.016)),
        editor=EditorMetrics(
            scored_by="truth" if truth == "shapes" else "verifier",
            before=ScoreParts(score=estimate(5.97, 0.1)),
            after=ScoreParts(score=estimate(7.46, 0.1)),
            gain=ScoreParts(score=estimate(1.48, 0.16)),
            unchanged=estimate(4.0, 0.0) if truth == "shapes" else None,
        ),
        stages=tuple(
            StageReport(name=name, kind=name, description="", state="done", seconds=seconds)
            for name, seconds in (("curate", 38.0), ("sft", 75.0), ("serve", 103.0), ("gcpo", 162.0))
        ),
        nodes=(
            LineageNode(digest="sha256:base", label="shapes-verifier", kind="verifier"),
            LineageNode(digest="sha256:sft", label="sft/model", kind="verifier"),
        ),
    )


def record() -> RunRecord:
    return RunRecord(name="run", seed=0, created=0.0, stages={stage.name: stage for stage in (CURATE, SFT, GCPO, GRPO)})


def test_summary_says_what_was_trained_how_good_and_sure_it_is_and_what_it_cost() -> None:
    found = {line.title: line.text for line in summary(record(), data())}
    assert found["What was trained"] == (
        "Stage sft: a verifier, starting from shapes-verifier, by SFT on 6000 rows in 340 steps. "
        "Stage gcpo: the verifier, starting from sft/model, by GCPO on 960 preference pairs in 90 steps. "
        "Stage grpo: an image editor, starting from black-forest-labs/FLUX.1-Kontext-dev, by GRPO in 60 iterations of 8 cases"
        " with 16 edits each, with the scores of sft/model as reward."
    )
    quality = found["How good it is"]
    assert "Of 1000 held-out pairs, the SFT-RRM ranks 78.2 % and the RL-RRM ranks 84.1 %" in quality
    assert "50 % is chance, 95 % a perfect verifier" in quality
    assert "changes from 5.97 to 7.46 of 10; an editor that returns the source image unchanged gets 4.00." in quality
    assert "+4.2 to +7.5 points (95 % interval, n = 1000)" in found["How certain the results are"]
    assert "1.0 points for the accuracy of the SFT-RRM and 2.2 points" in found["How certain the results are"]
    assert found["What the run cost"] == (
        "4 min 35 s in stages on 2 cores, a processor: gcpo 2 min 42 s (59 %), sft 1 min 15 s (27 %), curate 38 s (14 %)."
        " Stage curate sent 20\u202f507 requests with 21\u202f095\u202f293 tokens (estimated from the length of the texts of"
        " simulated models)."
    )


def test_summary_of_photographs_claims_no_ground_truth_and_no_difference_between_seeds() -> None:
    text = " ".join(line.text for line in summary(record(), data("none")))
    assert "perfect verifier" not in text and "source image unchanged" not in text and "standard deviation" not in text
    assert "mean verifier's score" in text
    assert "training runs with different seeds" in text


def test_terminal_table_has_signs_and_points_on_gains_and_whole_counts() -> None:
    out = io.StringIO()
    Report(Path("report.html"), data()).print_table(Console(file=out, width=120))
    rows = {
        cells[0]: cells[1:]
        for line in out.getvalue().splitlines()
        if len(cells := [c.strip() for c in line.split("│")[1:-1]]) == 4
    }
    assert rows["SFT-RRM, ties"] == ["10.00 %", "8.00 to 12.00", "1,000"]
    assert rows["accuracy gain of RL-RRM (half credit)"] == ["+5.85 points", "+4.25 to +7.45", "1,000"]
    assert rows["gain of the editor, true score"] == ["+1.48 of 10", "+1.32 to +1.64", "1,000"]
    assert rows["editor before RL, true score"][0] == "5.97 of 10"


def test_terminal_table_counts_failed_pairs_as_wrong_once_more() -> None:
    found = data()
    accuracy = found.verifiers[0].accuracy
    assert accuracy is not None
    failed = accuracy.model_copy(update={"failed": 51, "half_credit_with_failed": estimate(0.7445, 0.02, 1051)})
    verifier = found.verifiers[0].model_copy(update={"accuracy": failed})
    out = io.StringIO()
    Report(Path("r"), found.model_copy(update={"verifiers": (verifier,)})).print_table(Console(file=out, width=140))
    assert "SFT-RRM, accuracy (half credit), 51 failed pairs counted as wrong │ 74.45 %" in out.getvalue()


def test_whole_metrics_are_printed_in_full() -> None:
    assert format_metrics({"traces": 18000.0, "rate": 0.89136, "failed": 0.0, "tokens": 17009805.0}, 4) == (
        "traces 18,000  rate 0.8914  failed 0  tokens 17,009,805"
    )


def test_summary_says_what_is_missing_in_partial_results() -> None:
    assert not [line for line in summary(record(), data()) if line.title == "What is missing"]
    missing = Missing(causes={"think: UnreadableAnswer": 2}, total=40)
    stages = {"curate": CURATE.model_copy(update={"missing": missing})}
    (text,) = (
        line.text for line in summary(record().model_copy(update={"stages": stages}), data()) if "missing" in line.title
    )
    assert text.startswith("curate: 2 of 40 items have no usable model answer (think: UnreadableAnswer: 2); repeat the")
