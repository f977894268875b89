"""The quickstart on a cluster produces the same artifacts and report as a local run."""

import os
import subprocess
import sys
from pathlib import Path

from editr1.artifacts import open_store
from editr1.config.store import StoreConfig
from editr1.runs.record import State, load_record
from tests.cluster.conftest import ROOT, Lab, until
from tests.integration.test_run_smallest import SMALL

SAMPLE = ROOT / "manifests/samples/quickstart.yaml"
SETS = [part for item in SMALL for part in ("--set", item)]


def test_quickstart_produces_the_artifacts_of_a_local_run(lab: Lab, tmp_path: Path) -> None:
    arguments = ["run", str(SAMPLE), *SETS, "--runs-dir", str(tmp_path / "cluster"), "--on", "kubernetes"]
    arguments.append("--no-operator")  # An earlier installation may have left the EditRun resource.
    done = lab.editr1(*arguments)
    report = tmp_path / "cluster/small/report.html"
    assert f"report: {report}" in done.stdout and report.stat().st_size > 20_000
    local_arguments = ["run", str(SAMPLE), *SETS, "--runs-dir", str(tmp_path / "local")]
    command = [sys.executable, "-m", "editr1.cli.main", *local_arguments]
    subprocess.run(command, check=True, capture_output=True, env=os.environ, cwd=ROOT)

    local_record = load_record(open_store(StoreConfig(url=(tmp_path / "local/small/store").as_uri())), "small")
    cluster_record = load_record(lab.store(), "small")
    assert local_record is not None and cluster_record is not None and cluster_record.state is State.DONE
    for name, expected in local_record.stages.items():
        stage = cluster_record.stages[name]
        assert (stage.key, stage.outputs) == (expected.key, expected.outputs), name
    assert set(cluster_record.stages) == set(local_record.stages)

    again = lab.editr1(*arguments)
    assert "all stages are up to date; nothing to do" in again.stdout
    timeline = lab.editr1(
        "timeline", "small", "--runs-dir", str(tmp_path / "cluster"), "--store", "s3://editr1/runs"
    ).stdout
    for name in ("editr1.run small", "editr1.stage sft", "editr1.stage grpo", "editr1.reward"):
        assert name in timeline
    left = [item for item in lab.release_objects() if "serve" in item]
    assert left == [], "the reward service still exists after the end of the run"

    lab.kubectl("delete", "pytorchjob", "small-evaluate")  # as its time to live does
    until("no object of its release", lambda: not [item for item in lab.release_objects() if "small-evaluate" in item])
    lab.editr1("cancel", "small")
    until("no object of the run", lambda: not lab.release_objects())
    again = lab.editr1("cancel", "small", check=False)
    assert again.returncode == 2 and "no run or release 'small'" in again.stderr
