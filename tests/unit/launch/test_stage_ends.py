"""Every way in which a stage's process can end without its result makes the command fail with a true exit code."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from editr1.artifacts import open_store
from editr1.cli.main import app
from editr1.config.store import StoreConfig
from editr1.errors import ExitCode, failure_code
from editr1.launch.local.launcher import LocalLauncher, LocalRequest
from editr1.runs import await_result
from editr1.runs.job import StageJob
from editr1.runs.record import StageResult, load_record, result_key
from editr1.runs.spec import StageSpec

# SIGHUP and SIGINT may be ignored by whoever started the tests, as nohup does, and children inherit this.
KILL = (
    "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); signal.signal(signal.SIGHUP, signal.SIG_DFL);"
    " os.kill(os.getpid(), {})"
)
EXIT = "import sys; sys.exit({})"
WITHOUT_RESULT: list[tuple[str, str, int]] = [
    ("exit code 0 without a result", EXIT.format(0), ExitCode.UNEXPECTED),
    *((f"exit code {code.name}", EXIT.format(int(code)), code) for code in ExitCode if code),
    *((f"unknown exit code {code}", EXIT.format(code), code) for code in (7, 77, 127, 128, 200, 255)),
    ("exit code 256, of which the parent sees 0", EXIT.format(256), ExitCode.UNEXPECTED),
    ("exit code -1, of which the parent sees 255", EXIT.format(-1), 255),
    *(
        (f"killed by {number.name}", KILL.format(int(number)), 128 + number)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGABRT, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM)
    ),
]
Prepare = Callable[[StageJob], None]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Return a function that executes ``editr1 run`` or ``editr1 curate`` with a stage that runs a program, and its exit code."""
    monkeypatch.setattr(await_result, "RESULT_SECONDS", 0.1)
    monkeypatch.setattr(await_result, "POLL_SECONDS", 0.02)
    monkeypatch.delenv("EDITR1_PARENT_PID", raising=False)
    render = LocalLauncher.render

    def execute(program: str, prepare: Prepare = lambda _: None, single: bool = False) -> int:
        def script(self: LocalLauncher, job: StageJob, stage: StageSpec, traceparent: str | None) -> LocalRequest:
            real = render(self, job, stage, traceparent)
            prepare(job)
            return LocalRequest((sys.executable, "-I", "-S", "-c", program), real.environment, job)

        monkeypatch.setattr(LocalLauncher, "render", script)
        if single:
            arguments = ["curate", "--out", str(tmp_path / "r")]
        else:
            stage = {"name": "curate", "kind": "curate", "retries": 0}
            body = {"apiVersion": "editr1.dev/v1alpha1", "kind": "EditRun", "metadata": {"name": "r"}}
            (tmp_path / "run.json").write_text(json.dumps({**body, "spec": {"stages": [stage]}}))
            arguments = ["run", str(tmp_path / "run.json"), "--runs-dir", str(tmp_path)]
        result = CliRunner().invoke(app, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code

    return execute


def recorded(tmp_path: Path) -> Any:
    record = load_record(open_store(StoreConfig(url=(tmp_path / "r" / "store").as_uri())), "r")
    assert record is not None
    return record


@pytest.mark.parametrize(("program", "code"), [item[1:] for item in WITHOUT_RESULT], ids=[i[0] for i in WITHOUT_RESULT])
def test_run_without_result_fails_with_the_code_of_its_stage(
    command: Callable[..., int], tmp_path: Path, program: str, code: int
) -> None:
    assert command(program) == code
    record = recorded(tmp_path)
    assert (record.state, record.stages["curate"].state) == ("failed", "failed")
    assert record.stages["curate"].attempts[-1].exit_code in (code, 0)


def put_result(job: StageJob, *, stage: str = "curate", place: str = "", key: str = "") -> None:
    store = open_store(job.store)
    result = StageResult(key=key or job.key, outputs={}, metrics={})
    store.put_record(result_key(job.run, stage, place or job.key), result.model_dump_json().encode())


@pytest.mark.parametrize(
    "prepare",
    [
        lambda job: put_result(job, stage="other"),
        lambda job: put_result(job, place="b" * 64, key="b" * 64),
        lambda job: put_result(job, key="b" * 64),
    ],
    ids=["result of another stage", "result for another key", "result of another key in the place of this one"],
)
@pytest.mark.parametrize("single", [False, True], ids=["run", "single stage"])
def test_other_result_than_that_of_the_stage_is_no_success(
    command: Callable[..., int], prepare: Prepare, single: bool
) -> None:
    assert command(EXIT.format(0), prepare, single=single) == ExitCode.UNEXPECTED


def test_single_stage_fails_with_the_code_of_its_process(command: Callable[..., int]) -> None:
    assert command(EXIT.format(0), single=True) == ExitCode.UNEXPECTED
    assert command(EXIT.format(3), single=True) == ExitCode.DATA


def test_committed_result_is_success_whatever_the_exit_code(command: Callable[..., int]) -> None:
    assert command(KILL.format(9), put_result) == ExitCode.DONE


def test_result_that_a_read_does_not_find_at_once_is_looked_for_again(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(await_result, "RESULT_SECONDS", 30.0)
    load, reads = await_result.load_complete_result, list[bool]()

    def stale(store: Any, run: str, stage: str, key: str) -> Any:
        reads.append(True)
        if len(reads) < 3:
            return None
        put_result(
            StageJob(run=run, stage=stage, kind="curate", key=key, seed=0, store=store_config, workdir=Path("/"))
        )
        return load(store, run, stage, key)

    store_config: Any = None

    def keep(job: StageJob) -> None:
        nonlocal store_config
        store_config = job.store

    monkeypatch.setattr(await_result, "load_complete_result", stale)
    assert command(EXIT.format(0), keep) == ExitCode.DONE
    assert len(reads) == 3


@pytest.mark.parametrize(
    ("code", "expected"),
    [(None, 1), (0, 1), (3, 3), (137, 137), (-9, 137), (-15, 143), (256, 1), (-200, 1), (255, 255)],
)
def test_failure_code_is_never_zero_and_fits_into_a_byte(code: int | None, expected: int) -> None:
    assert failure_code(code) == expected
