"""What surrounds a stage: the environment of its machine must not change its result, and a reward service can refuse it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from editr1.artifacts import open_store
from editr1.config.store import StoreConfig
from editr1.data.tables import write_table
from editr1.data.types import Candidate, EditCase, Quadruple, SftRow
from editr1.errors import ExitCode
from editr1.runs.job import CONFIG_VARIABLE, StageJob
from editr1.runs.kinds import Kind
from editr1.runs.record import newest_result
from editr1.shapes.candidates import make_candidates
from editr1.shapes.cases import generate_cases
from editr1.verifier.trace import format_trace
from tests.unit.serving.outside_server import Json, outside_server

ROOT = Path(__file__).parents[2]
CASES = generate_cases(4, 0, "c", with_principles=True)


def editr1(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}", "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "editr1.cli.main", *words]
    return subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, timeout=300)


def row(case: EditCase, candidate: Candidate) -> SftRow:
    answers = [1] * len(case.principles)
    return SftRow(
        quadruple=Quadruple(case=case, candidate=candidate),
        trace=format_trace("It fits.", case.principles, answers, 8.0),
    )


def test_environment_of_the_machine_does_not_change_the_model(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    write_table(tmp_path / "rows/rows.parquet", [row(case, make_candidates(case, 0, 1)[0]) for case in CASES], SftRow)
    settings = ("max_steps=2", "batch_size=2", "warmup_steps=0", "learning_rate=1e-3")
    digests = []
    for name, environment in (
        ("plain", {}),
        ("other", {"OMP_NUM_THREADS": "4", "ACCELERATE_MIXED_PRECISION": "bf16", "ATEN_CPU_CAPABILITY": "default"}),
    ):
        words = ("sft", "--rows", "rows", "--model", "builtin:shapes-verifier-small", "--out", name)
        done = editr1(tmp_path, *words, *(word for one in settings for word in ("--set", one)), **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        log = "".join(file.read_text() for file in (tmp_path / name).rglob("log.txt"))
        assert ("these environment variables are ignored" in log) is bool(environment), log
        result = newest_result(open_store(StoreConfig(url=(tmp_path / name / "store").as_uri())), name, "sft")
        assert result is not None
        digests.append(
            open_store(StoreConfig(url=(tmp_path / name / "store").as_uri())).manifest(result.outputs["model"]).files
        )
    assert digests[0] == digests[1]


SIGNALLED = """
import os, signal, sys, time
from editr1.stages.runtime import entry

def signalled(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(float(sys.argv[2]))

setattr(entry, sys.argv[1], signalled)
entry.launch_ranks = signalled if sys.argv[1] == "launch_ranks" else lambda *_: 0
entry.main(None, "editr1.stages.sft")
"""


@pytest.mark.parametrize(("moment", "seconds"), [("write_earlier_checkpoints", "0"), ("launch_ranks", "60")])
def test_sigterm_before_the_ranks_are_started_ends_the_stage(tmp_path: Path, moment: str, seconds: str) -> None:
    job = StageJob(
        run="r", stage="s", kind=Kind.SFT, seed=0, store=StoreConfig(url=tmp_path.as_uri()), workdir=tmp_path / "work"
    )
    (tmp_path / "job.json").write_text(job.model_dump_json())
    variables = {**os.environ, "PYTHONPATH": str(ROOT), CONFIG_VARIABLE: str(tmp_path / "job.json")}
    command = [sys.executable, "-c", SIGNALLED, moment, seconds]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=50)
    assert done.returncode == ExitCode.TERMINATED, done.stderr


def test_service_that_begins_to_refuse_every_edit_ends_the_stage_after_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    write_table(tmp_path / "cases/cases.parquet", CASES, EditCase)
    scored = 0
    refusing = True

    def forge(_request: Json, response: Json) -> object:
        nonlocal scored
        scored += len(response["results"])
        return (401, {"cause": "refused", "detail": "not for you"}) if refusing and scored > 8 else response

    settings = (
        "iterations=3", "cases_per_iteration=2", "group_size=4", "num_inference_steps=3", "sde_window_size=1", "resolution=32",
        "checkpoint_every=1", "max_iterations_without_signal=0", "overlap=false",
    )  # fmt: skip
    with outside_server(forge) as server:
        words = (
            "grpo",
            "--cases",
            "cases",
            "--editor",
            "builtin:shapes-editor",
            "--reward",
            server.url,
            "--out",
            "grpo",
        )
        words += tuple(word for one in settings for word in ("--set", one))
        stopped = editr1(tmp_path, *words)
        assert stopped.returncode == ExitCode.CONFIG, stopped.stdout + stopped.stderr
        assert "8 of 8 scores failed" in stopped.stderr and "editr1 check-reward" in stopped.stderr
        refusing, before = False, len(server.requests)
        done = editr1(tmp_path, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        repeated = sum(len(request["items"]) for request in server.requests[before:])
        assert repeated == 2 * 8, "the first of three iterations was not repeated"
