"""``editr1 reproduce``: all experiments at the smallest size, the results, and a second call that starts nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from editr1.artifacts import open_store
from editr1.config.reproduce import SMALLEST
from editr1.config.store import StoreConfig
from editr1.reproduce.claims import CLAIM_TITLES, make_comparisons
from editr1.reproduce.experiments import make_experiments
from editr1.runs.record import State, load_record


def command(out: Path, *more: str) -> list[str]:
    arguments = ["reproduce", "--size", "smallest", "--seeds", "1", "--first-seed", "7", "--out", str(out), *more]
    return [sys.executable, "-m", "editr1.cli.main", *arguments]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("reproduction")
    elsewhere = out / "elsewhere"
    environment = {
        **os.environ,
        "EDITR1_STORE": elsewhere.as_uri(),
        "EDITR1_RUN__SPEC__SEED": "3",
    }  # these settings must not reach the runs
    done = subprocess.run(command(out), capture_output=True, text=True, timeout=1500, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert not elsewhere.exists()
    return out, done.stdout


def test_every_comparison_of_every_claim_is_in_the_results(reproduced: tuple[Path, str]) -> None:
    out, printed = reproduced
    found = json.loads((out / "reproduction.json").read_text())
    parts = make_comparisons(SMALLEST)
    assert [part["text"] for part in found["comparisons"]] == [part.text for part in parts]
    for part in found["comparisons"]:
        # After only eight training steps, possibly no trace parses; the comparison is then marked as not measured.
        measured = part["difference"] is not None
        assert (part["outcome"] == "not measured") is not measured, part["text"]
        if measured:
            assert part["difference"]["low"] <= part["difference"]["value"] <= part["difference"]["high"]
            assert list(part["by_seed"]) == ["7"]
        assert f"| {part['claim']}. {part['text']} |" in printed
    editors = [part for part in found["comparisons"] if part["claim"] in (5, 6)]
    assert all(part["difference"] is not None for part in editors)  # the ground truth needs no verifier
    page = (out / "reproduction.html").read_text()
    assert all(title in page for title in CLAIM_TITLES.values())
    assert "<script" not in page
    assert (out / "table.md").read_text() in printed


def test_each_experiment_is_a_run_with_record_spans_and_logs(reproduced: tuple[Path, str]) -> None:
    out, _ = reproduced
    store = open_store(StoreConfig(url=(out / "store").resolve().as_uri()))
    for experiment in make_experiments(7, SMALLEST).values():
        record = load_record(store, f"s7-{experiment.name}")
        assert record is not None, experiment.name
        assert record.state is State.DONE
        assert all(stage.state is State.DONE for stage in record.stages.values())
        spans = (out / "runs" / record.name / "spans.jsonl").read_text().splitlines()
        assert {json.loads(line)["attributes"].get("run") for line in spans if '"run"' in line} >= {record.name}
        for stage in experiment.stages:
            assert (out / "runs" / record.name / "stages" / stage.name / "log.txt").is_file()


def test_second_call_starts_nothing(reproduced: tuple[Path, str]) -> None:
    out, _ = reproduced
    before = {file: file.stat().st_mtime_ns for file in out.rglob("result.json")}
    again = subprocess.run(command(out, "--only", "gcpo"), capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "already complete" in again.stderr
    assert "started:" not in again.stderr
    assert {file: file.stat().st_mtime_ns for file in out.rglob("result.json")} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_reproduction_continues_and_leaves_no_process(
    tmp_path: Path, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    arguments = command(tmp_path, "--only", "size", "--parallel", "2")
    first = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    request.addfinalizer(first.kill)
    assert first.stderr is not None
    lines = iter(first.stderr.readline, "")
    assert any("s7-tv" in line and "started:" in line for line in lines)
    first.send_signal(number)
    first.communicate(timeout=120)
    assert first.returncode == (143 if number == signal.SIGTERM else -9)
    again = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert "s7-data (1 of 5)  already complete" in again.stderr
    assert "s7-small-gcpo gcpo: gcpo" in again.stderr  # progress of the run
    found = json.loads((tmp_path / "reproduction-size.json").read_text())
    assert not found["failed"]
    assert not processes_of(tmp_path)


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes whose environment or arguments name ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if str(folder).encode() in words and process.name != str(os.getpid()):
                found.append(words[:200].decode(errors="replace"))
    return found


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--only", "gpco"], "there is no claim 'gpco'"), (["--set", "rollouts=0"], "rollouts")],
)
def test_invalid_option_is_refused_before_anything_runs(tmp_path: Path, more: list[str], message: str) -> None:
    done = subprocess.run(command(tmp_path / "out", *more), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
