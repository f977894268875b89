"""Live files of a stage, estimates of the remaining time, the timeline and the store probe."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from editr1.artifacts import ArtifactStore, open_store
from editr1.artifacts.probe import probe
from editr1.config.store import StoreConfig
from editr1.runs.live import LiveFiles, LiveProgress, PodAttempt, ProgressEstimator, lost_attempts, retries_used
from editr1.runs.stage_metrics import phase_curves
from editr1.runs.timeline import draw, gather_spans, timeline_rows
from editr1.telemetry.progress import Progress, ProgressReader


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(StoreConfig(url=(tmp_path / "store").as_uri()))


def line(t: float, phase: str, done: int, total: int = 10, **metrics: float) -> dict[str, Any]:
    return {"t": t, "phase": phase, "done": done, "total": total} | ({"metrics": metrics} if metrics else {})


def summarise(lines: list[dict[str, Any]]) -> LiveProgress | None:
    estimator = ProgressEstimator()
    for item in lines:
        estimator.add([item])
    return estimator.current()


def test_remaining_time_is_estimated_from_the_current_phase() -> None:
    lines = [line(0, "load", 0, 1), line(90, "load", 1, 1), line(100, "train", 2), line(104, "train", 4, loss=0.5)]
    found = summarise(lines)
    assert found is not None
    assert (found.phase, found.done, found.seconds_left, found.metrics) == ("train", 4, 12.0, {"loss": 0.5})


def test_remaining_time_of_a_restarted_phase_ignores_earlier_attempts() -> None:
    found = summarise([line(0, "train", 0), line(100, "train", 5), line(200, "train", 4), line(202, "train", 6)])
    assert found is not None and found.seconds_left == 4.0
    assert summarise([]) is None
    first = summarise([line(0, "train", 0)])
    assert first is not None and first.seconds_left is None


def test_each_complete_progress_line_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"
    reader = ProgressReader(file)
    assert reader.new() == []
    progress = Progress(file)
    progress.phase("train", 3)
    progress.step(loss=0.5)
    assert [item["done"] for item in reader.new()] == [0, 1]
    with file.open("a") as half:
        half.write('{"t": 1, "pha')
    assert reader.new() == []
    assert ProgressReader(file, skip_existing=True).new() == []
    again = Progress(file)
    again.phase("train", 3, done=1)
    again.step()
    assert [item["done"] for item in reader.new()] == [2], "only the line appended to the incomplete one is lost"


def test_live_files_round_trip(store: ArtifactStore) -> None:
    files = LiveFiles(store, "run", "sft", "k")
    assert files.progress() is None and files.attempts() == [] and files.logs() == {}
    first = PodAttempt(pod="p-0", uid="12345678-9", started=1.0)
    second = PodAttempt(pod="p-0", uid="abcdefgh-9", started=2.0, ended=3.0, exit_code=137)
    for attempt in (second, first):
        files.write_attempt(attempt)
    files.write_log(first, ["a", "b"])
    assert files.attempts() == [first, second]
    assert files.logs() == {"p-0.12345678": "a\nb\n"}


@pytest.mark.parametrize(("code", "used"), [(0, 0), (2, 0), (137, 1), (143, 0), (129, 1), (None, 0)])
def test_only_retryable_failures_count_as_used_retries(code: int | None, used: int) -> None:
    assert retries_used([PodAttempt(pod="p", uid="u", started=0, exit_code=code)]) == used


def span(name: str, number: int, parent: int | None, start: float, end: float, **attributes: str) -> dict[str, Any]:
    return {
        "name": name,
        "service": "s",
        "trace": "t",
        "span": f"{number:016x}",
        "parent": None if parent is None else f"{parent:016x}",
        "start": start,
        "end": end,
        "ok": True,
        "attributes": attributes,
    }


def test_pod_spans_and_local_spans_form_one_tree(store: ArtifactStore, tmp_path: Path) -> None:
    local = tmp_path / "spans.jsonl"
    local.write_text(json.dumps(span("editr1.run", 1, None, 0, 20, run="r")) + '\n{"half": ')
    files = LiveFiles(store, "r", "sft", "k")
    stage = [span("editr1.stage", 2, 1, 1, 19, stage="sft")]
    steps = [span("editr1.step", 10 + i, 2, 2 + i, 3 + i) for i in range(6)]
    data = "\n".join(json.dumps(item) for item in [*stage, *steps, stage[0]]).encode()
    files.write_spans(PodAttempt(pod="p", uid="u", started=0), data)
    spans = gather_spans(store, "r", local)
    assert [(depth, name) for depth, name, *_ in timeline_rows(spans)] == [
        (0, "editr1.run r"),
        (1, "editr1.stage sft"),
        (2, "editr1.step x 6, mean 1.00 s"),
    ]
    text = io.StringIO()
    draw(spans, Console(file=text))
    assert "    editr1.step x 6, mean 1.00 s" in text.getvalue()


def test_truncated_lines_of_a_killed_pod_are_skipped(store: ArtifactStore) -> None:
    files = LiveFiles(store, "r", "sft", "k")
    whole = json.dumps(span("editr1.stage", 2, 1, 1, 19, stage="sft"))
    files.write_spans(PodAttempt(pod="p", uid="u", started=0), f'{whole}\n{{"span": "3", "na'.encode())
    assert [item["name"] for item in files.spans()] == ["editr1.stage"]
    lines = [json.dumps(line(float(n), "sft", n, loss=1.0 / n)) for n in range(1, 5)]
    torn = "\n".join([*lines[:2], lines[2][:20] + lines[3], *lines[2:]])
    assert phase_curves(torn.encode()) == {("sft", "loss"): ((1.0, 1.0), (2.0, 0.5), (3.0, 1 / 3), (4.0, 0.25))}


def test_timeline_lists_each_attempt_and_aggregates_steps() -> None:
    attempts = [span("editr1.attempt", 10 + i, 1, i, i + 1, stage=f"s{i}") for i in range(6)]
    steps = [span("editr1.step", 20 + i, 10, i / 10, i / 10) for i in range(6)]
    names = [name for _, name, *_ in timeline_rows([span("editr1.run", 1, None, 0, 9), *attempts, *steps])]
    assert [name for name in names if "attempt" in name] == [f"editr1.attempt s{i}" for i in range(6)]
    assert [name for name in names if "step" in name] == ["editr1.step x 6, mean 0.00 s"]


def test_store_probe_checks_each_operation_and_removes_its_objects(store: ArtifactStore) -> None:
    assert [(step.name, step.ok) for step in probe(store)] == [
        ("put", True),
        ("get", True),
        ("conditional put", True),
        ("delete", True),
    ]
    assert list(store.objects.keys("")) == []


def test_store_probe_stops_at_the_first_failure_with_a_reason(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwrite(key: str, data: bytes, *, once: bool = False) -> None:
        type(store.objects).put_bytes(store.objects, key, data)  # type: ignore[arg-type]

    monkeypatch.setattr(store.objects, "put_bytes", overwrite)
    steps = probe(store)
    assert [step.ok for step in steps] == [True, True, False]
    assert "ignores If-None-Match" in steps[-1].detail


def test_attempt_without_exit_code_or_new_checkpoint_counts_as_lost() -> None:
    def attempt(code: int | None, checkpoint: str) -> PodAttempt:
        return PodAttempt(pod="p", uid="u", started=0, exit_code=code, checkpoint=checkpoint)

    attempts = [attempt(None, ""), attempt(None, "5"), attempt(None, "5"), attempt(137, "5")]
    assert [lost_attempts(attempts, checkpoint) for checkpoint in ("", "5", "9")] == [1, 2, 0]
    terminated = attempt(None, "5").model_copy(update={"leaving": True})
    assert lost_attempts([*attempts, terminated], "5") == 2, "an attempt that received SIGTERM is not lost"
