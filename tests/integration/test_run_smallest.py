"""A complete run of the smallest size, with six real stages, a real reward server and a report."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from editr1.artifacts import open_store
from editr1.config.store import StoreConfig
from editr1.runs.timeline import gather_spans
from tests.unit.evaluation import recomputed

ROOT = Path(__file__).parents[2]
SMALL = [
    "metadata.name=small",
    "curate.shapes.cases=24",
    "curate.shapes.candidates=2",
    "curate.shapes.pairs=8",
    "curate.shapes.test_pairs=8",
    "curate.shapes.rl_cases=8",
    "curate.shapes.test_cases=8",
    "sft.max_steps=60",
    "sft.checkpoint_every=10",
    "sft.warmup_steps=5",
    "gcpo.rollouts=2",
    "gcpo.pairs_per_rollout=2",
    "gcpo.num_traces=4",
    "gcpo.max_rollouts_without_signal=0",
    "grpo.max_iterations_without_signal=0",
    "grpo.iterations=2",
    "grpo.cases_per_iteration=2",
    "grpo.group_size=4",
    "grpo.max_failed_fraction=1.0",
    "evaluate.max_failed_fraction=1.0",
    "evaluate.bootstrap_samples=200",
    "serve.golden_must_parse=false",
]


def command(runs: Path) -> list[str]:
    sets = [part for item in SMALL for part in ("--set", item)]
    file = ROOT / "manifests" / "samples" / "quickstart.yaml"
    return [sys.executable, "-m", "editr1.cli.main", "run", str(file), "--runs-dir", str(runs), *sets]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, str]:
    """Complete a run after killing an SFT rank, stopping the run, and killing the run together with a stage process."""
    runs = tmp_path_factory.mktemp("runs")
    first = subprocess.Popen(command(runs), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    request.addfinalizer(first.kill)  # the stage processes exit with their parent
    before = wait_for_checkpoints(first, runs, 1)
    os.kill(rank_of(runs), signal.SIGKILL)
    wait_for_checkpoints(first, runs, before + 1)
    first.send_signal(signal.SIGTERM)
    _, error = first.communicate(timeout=300)
    assert first.returncode == 143, error
    second = subprocess.Popen(command(runs), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, text=True)
    request.addfinalizer(second.kill)
    wait_for_checkpoints(second, runs, len(list((runs / "small" / "store").rglob("checkpoints/*.json"))) + 1)
    agent = int(Path(f"/proc/{rank_of(runs)}/stat").read_text().rsplit(")", 1)[1].split()[1])
    second.kill()
    os.kill(agent, signal.SIGKILL)
    second.wait()
    done = subprocess.run(command(runs), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return runs / "small", done.stderr + done.stdout


def wait_for_checkpoints(run: subprocess.Popen[str], runs: Path, count: int) -> int:
    deadline = time.monotonic() + 300
    while True:
        found = len(list((runs / "small" / "store").rglob("checkpoints/*.json")))
        if found >= count:
            return found
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def rank_of(runs: Path) -> int:
    """Return the process id of a rank of the SFT stage (a child of torchrun, not torchrun itself)."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if b"editr1.stages.sft" in words and b"\0LOCAL_RANK=" in environment and str(runs).encode() in environment:
            return int(process.name)
    raise AssertionError("no rank of sft is running")


def test_killed_rank_and_interrupted_run_continue_from_checkpoints(finished: tuple[Path, str]) -> None:
    folder, output = finished
    assert re.search(r"curate\s+up to date", output)
    progress = [json.loads(line) for line in next((folder / "stages" / "sft").glob("progress-*.jsonl")).open()]
    steps = [line["done"] for line in progress if "metrics" in line]
    assert steps[0] == 1
    assert steps.count(1) == 1, "a later attempt restarted at step 1"
    assert steps[-1] == 60
    record = json.loads(next((folder / "store").rglob("runs/small/record.json")).read_text())
    codes = [attempt["exit_code"] for attempt in record["stages"]["sft"]["attempts"]]
    assert codes == [137, 143, None, 0]


def test_finished_run_has_a_report_and_one_opentelemetry_trace(
    finished: tuple[Path, str],
) -> None:
    folder, output = finished
    report = (folder / "report.html").read_text()
    assert "RL-RRM" in report
    assert not re.search(r'(src|href)="https?://', report)
    assert "report:" in output
    spans = [json.loads(line) for line in (folder / "spans.jsonl").open()]
    services = {span["service"] for span in spans}
    assert {f"editr1-{kind}" for kind in ("run", "curate", "sft", "gcpo", "serve", "grpo", "evaluate")} <= services
    last = [span["trace"] for span in spans if span["name"] == "editr1.run"][-1]
    in_trace = {span["name"] for span in spans if span["trace"] == last}
    assert {"editr1.attempt", "editr1.stage", "editr1.reward.request", "editr1.reward.generate"} <= in_trace
    names = {span["span"]: (span["service"], span["name"]) for span in spans}
    phases = {(*names[span["parent"]], span["name"]) for span in spans if span.get("parent") in names}
    for service, phase in (("gcpo", "sample"), ("gcpo", "reward"), ("grpo", "sample"), ("grpo", "optimise")):
        assert (f"editr1-{service}", "editr1.step", f"editr1.step.{phase}") in phases


def test_every_figure_of_the_report_can_be_recomputed_from_the_artifacts(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    evaluation = next((folder / "stages" / "evaluate").glob("out-*/evaluation"))
    recomputed.check(evaluation, min_groups=1000)  # intervals over so few items are too coarse to compare
    recomputed.check_page((folder / "report.html").read_text(), evaluation)


def test_timeline_shows_every_recorded_step(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    recorded = [json.loads(line) for line in (folder / "spans.jsonl").open()]
    assert len({span["span"] for span in recorded}) == len(recorded)
    shown = gather_spans(open_store(StoreConfig(url=(folder / "store").as_uri())), "small", folder / "spans.jsonl")
    for service in ("editr1-sft", "editr1-gcpo", "editr1-grpo"):
        steps = [
            [s for s in spans if (s["service"], s["name"]) == (service, "editr1.step")] for spans in (recorded, shown)
        ]
        assert len(steps[0]) == len(steps[1]) > 0


def test_repeated_command_starts_nothing(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before = (folder / "spans.jsonl").read_text().count("editr1.attempt")
    again = subprocess.run(command(folder.parent), capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout
    assert (folder / "spans.jsonl").read_text().count("editr1.attempt") == before


def test_commands_show_verify_and_download_outputs_of_a_finished_run(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    run = [sys.executable, "-m", "editr1.cli.main"]
    shown = subprocess.run(
        [*run, "runs", "show", "small", "--runs-dir", str(folder.parent), "--json"], capture_output=True, check=True
    )
    record = json.loads(shown.stdout)
    assert record["state"] == "done"
    model = record["stages"]["grpo"]["outputs"]["model"]
    store = ["--store", str(folder / "store")]
    lineage = subprocess.run([*run, "artifacts", "lineage", model, *store], capture_output=True, text=True, check=True)
    assert "editor by grpo" in lineage.stdout
    subprocess.run([*run, "artifacts", "verify", model, *store], check=True)
    pulled = folder / "pulled"
    subprocess.run([*run, "artifacts", "pull", model, str(pulled), *store], check=True)
    code = (
        "import torch; from diffusers import FluxKontextPipeline; "
        f"FluxKontextPipeline.from_pretrained({str(pulled)!r}, torch_dtype=torch.float32); print('loaded')"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert "loaded" in loaded.stdout, loaded.stderr
