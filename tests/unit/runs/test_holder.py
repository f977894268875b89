"""``editr1 runs show`` names the process that executes a run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from editr1.artifacts import ArtifactStore, open_store
from editr1.cli.main import app
from editr1.runs.claim import STALE_SECONDS, Heartbeat, newest_claim, take
from editr1.runs.holder import HolderState, run_holder
from editr1.runs.record import RunRecord, save_record


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    opened = open_store((tmp_path / "runs" / "r" / "store").as_uri())
    save_record(opened, RunRecord(name="r", seed=1, created=time.time(), stated={}))
    return opened


def show(tmp_path: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["runs", "show", "r", "--runs-dir", str(tmp_path / "runs"), *options])
    assert done.exit_code == 0, done.output
    return done.output


def holder_of(tmp_path: Path) -> Any:
    return json.loads(show(tmp_path, "--json"))["holder"]


def test_run_without_a_claim_has_no_holder(store: ArtifactStore, tmp_path: Path) -> None:
    assert run_holder(store, "r") is None
    assert holder_of(tmp_path) is None and "execut" not in show(tmp_path)


def test_holder_is_shown_while_it_executes_and_after_it_released_the_run(store: ArtifactStore, tmp_path: Path) -> None:
    before = time.time()
    claim = take(store, "r", None)
    assert claim is not None
    assert holder_of(tmp_path)["state"] == HolderState.UNKNOWN
    with Heartbeat(claim):
        holder = holder_of(tmp_path)
        assert holder["state"] == HolderState.EXECUTING
        assert (holder["host"], holder["pid"]) == (claim.holder.host, claim.holder.pid)
        assert before <= holder["since"] <= holder["last_heartbeat"] <= time.time()
        text = show(tmp_path)
        assert (
            f"executed by process {holder['pid']} on {holder['host']}, since" in text and "last heartbeat: 0." in text
        )
    assert holder_of(tmp_path)["state"] == HolderState.RELEASED
    assert f"last executed by process {holder['pid']}" in show(tmp_path)


def test_old_heartbeat_is_stale(store: ArtifactStore) -> None:
    claim = take(store, "r", None)
    assert claim is not None
    claim.beat(1)
    late = run_holder(store, "r", now=time.time() + STALE_SECONDS + 1)
    assert late is not None and late.state is HolderState.STALE
    assert "take it over" in late.sentence(time.time() + 31) and "31 s ago" in late.sentence(time.time() + 31)


def test_process_that_was_killed_is_reported_as_exited(store: ArtifactStore, tmp_path: Path) -> None:
    program = (
        "import os, sys; from editr1.artifacts import open_store; from editr1.runs.claim import take;"
        "claim = take(open_store(sys.argv[1]), 'r', None); claim.beat(1); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, (tmp_path / "runs" / "r" / "store").as_uri()], check=False)
    assert newest_claim(store, "r") is not None
    assert holder_of(tmp_path)["state"] == HolderState.EXITED
    assert "has exited without releasing it" in show(tmp_path)
