"""A rank that is stopped is named and killed, in training and before the ranks have met."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from editr1.config.store import StoreConfig
from editr1.runs.job import StageJob

RANKS = """
import os, pathlib, signal, sys, time
from editr1.parallel.heartbeat import start_heartbeat

rank, moment = int(os.environ["RANK"]), os.environ["MOMENT"]
if rank == 1 and moment == "before the first heartbeat":
    os.kill(os.getpid(), signal.SIGSTOP)
start_heartbeat()
if rank == 1:
    time.sleep(2)
    os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(600)
"""
LAUNCH = """
import logging, sys
from pathlib import Path
from editr1.runs.job import StageJob
from editr1.stages.runtime.torchrun import launch_ranks

logging.basicConfig(level=logging.INFO)
sys.exit(launch_ranks("ranks", StageJob.model_validate_json(Path(sys.argv[1]).read_text())))
"""


@pytest.mark.parametrize("moment", ["before the first heartbeat", "in training"])
def test_stopped_rank_is_named_and_killed_with_a_code_that_is_retried(tmp_path: Path, moment: str) -> None:
    (tmp_path / "ranks.py").write_text(RANKS)
    job = StageJob(
        run="r", stage="s", kind="sft", seed=0, store=StoreConfig(url=tmp_path.as_uri()), workdir=tmp_path / "work",
        runtime={"heartbeat_timeout_seconds": 10},
    )  # fmt: skip
    (tmp_path / "job.json").write_text(job.model_dump_json())
    path = f"{tmp_path}:{Path(__file__).parents[2]}"
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "PET_NPROC_PER_NODE": "2",
        "MOMENT": moment,
        "TMPDIR": str(tmp_path / "tmp"),
    }
    (tmp_path / "tmp").mkdir()
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, str(tmp_path / "job.json")],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 137, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING") and "rank 1 (process" in line]
    assert len(warnings) == 1 and "has been silent since" in warnings[0], done.stderr
    assert "it is killed now" in done.stderr.splitlines()[-1]
    assert "rank 0" not in "".join(warnings)
    assert time.monotonic() - start < 100.0
    assert not list((tmp_path / "tmp").glob("torchelastic_*")), "a killed stage would leave the folder behind"
