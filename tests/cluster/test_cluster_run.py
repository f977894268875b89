"""The quickstart on a cluster: the same command, artifacts and report as on one machine."""

import os
import subprocess
import sys
from pathlib import Path

from editr1.artifacts import open_store
from editr1.config.store import StoreConfig
from editr1.runs.record import State, load_record
from tests.cluster.conftest import ROOT, Lab
from tests.integration.test_run_smallest import SMALL

SAMPLE = ROOT / "manifests/samples/quickstart.yaml"
SETS = [part for item in SMALL for part in ("--set", item)]


def test_quickstart_produces_the_artifacts_of_a_local_run(lab: Lab, tmp_path: Path) -> None:
    arguments = ["run", str(SAMPLE), *SETS, "--runs-dir", str(tmp_path / "cluster"), "--on", "kubernetes"]
    done = lab.editr1(*arguments)
    report = tmp_path / "cluster/small/report.html"
    assert f"report: {report}" in done.stdout and report.stat().st_size > 20_000
    local = [sys.executable, "-m", "editr1.cli.main", "run", str(SAMPLE), *SETS, "--runs-dir", str(tmp_path / "local")]
    subprocess.run(local, check=True, capture_output=True, env=os.environ, cwd=ROOT)

    here = load_record(open_store(StoreConfig(url=(tmp_path / "local/small/store").as_uri())), "small")
    there = load_record(lab.store(), "small")
    assert here is not None and there is not None and there.state is State.DONE
    assert {s.name: s.key for s in there.stages.values()} == {s.name: s.key for s in here.stages.values()}
    assert {s.name: s.outputs for s in there.stages.values()} == {s.name: s.outputs for s in here.stages.values()}

    again = lab.editr1(*arguments)
    assert "all stages are up to date; nothing to do" in again.stdout
    trace = lab.editr1(
        "timeline", "small", "--runs-dir", str(tmp_path / "cluster"), "--store", "s3://editr1/runs"
    ).stdout
    for name in ("editr1.run small", "editr1.stage sft", "editr1.stage grpo", "editr1.reward"):
        assert name in trace
    left = [item for item in lab.left() if "serve" in item]
    assert left == [], "the reward service outlived the run"
    lab.editr1("cancel", "small")
