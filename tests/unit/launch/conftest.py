"""Runs with real processes, in which a short script replaces every stage."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from editr1.launch.execute import execute
from editr1.launch.local.launcher import LocalLauncher, LocalRequest
from editr1.runs.job import StageJob
from editr1.runs.spec import RunSpec, StageSpec

SCRIPT = """
import json, os, pathlib, sys, time
from editr1.artifacts import open_store
from editr1.runs.job import read_job
from editr1.runs.record import Missing, StageResult, result_key
job = read_job()
job.workdir.mkdir(parents=True, exist_ok=True)

def starts_of(stage):
    file = job.workdir.parent / stage / "starts"
    return int(file.read_text() or 0) if file.exists() else 0

def wait_for_start(stage, after):
    deadline = time.monotonic() + 120
    while starts_of(stage) <= after:
        assert time.monotonic() < deadline, f"{stage} was not started"
        time.sleep(0.02)

starts = starts_of(job.stage) + 1
earlier = {stage: starts_of(stage) for stage in ("serve", "grpo")}
(job.workdir / "starts").write_text(str(starts))
plan = json.loads(os.environ["PLAN"]).get(job.stage, [0])
code = plan[min(starts, len(plan)) - 1]
with job.progress_file.open("a") as file:
    file.write(json.dumps({"t": time.time(), "phase": "work", "done": 1, "total": 1, "metrics": {"x": 1}}) + "\\n")
if job.kind == "serve":
    if code == "killed before it is ready":
        os.kill(os.getpid(), 9)
    if isinstance(code, int) and code:
        print("12:00:00 ERROR editr1: the server failed", file=sys.stderr)
        sys.exit(code)
    (job.workdir / "service.json").write_text(json.dumps({"urls": ["http://127.0.0.1:1"], "digest": "d"}))
    if code == "exit while grpo runs":
        wait_for_start("grpo", earlier["grpo"])
        sys.exit(9)
    time.sleep(600)
if code == "sleep":
    time.sleep(600)
if str(code).startswith("after a restart of serve "):
    wait_for_start("serve", earlier["serve"])
    code = int(code.split()[-1])
missing = Missing(causes={"decompose: RequestRefused": 1}, total=3) if code == "partial" else Missing()
content = f"{code} {job.seed}"
if code and not missing:
    print("12:00:00 ERROR editr1: the stage failed", file=sys.stderr)
    sys.exit(code)
store = open_store(job.store)
outputs = {}
for name in {"curate": ["rows", "pairs", "cases", "pairs-test", "cases-test"], "evaluate": []}.get(job.kind, ["model"]):
    folder = job.workdir / "out" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text(f"{name} {content}")
    outputs[name] = store.commit(folder, kind="test", stage=str(job.kind)).digest
result = StageResult(key=job.key, outputs=outputs, metrics={"starts": starts}, missing=missing)
store.put_record(result_key(job.run, job.stage, job.key), result.model_dump_json().encode())
"""


class Watcher:
    """Observer that records the name of each event and the name of its stage."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda stage, *rest: self.events.append((name, getattr(stage, "name", stage)))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    render = LocalLauncher.render

    def script(self: LocalLauncher, job: StageJob, stage: StageSpec, traceparent: str | None) -> LocalRequest:
        real = render(self, job, stage, traceparent)
        return LocalRequest((sys.executable, "-c", SCRIPT), {**real.environment, "PLAN": json.dumps(plan)}, job)

    plan: dict[str, list[Any]] = {}
    monkeypatch.setattr(LocalLauncher, "render", script)

    def run(
        spec: RunSpec, stop: Any = lambda: False, options: Any = None, **codes: list[Any]
    ) -> tuple[Any, bool, Watcher]:
        """Run ``spec`` with the exit codes of each stage, and the ``options`` of execute; by default, the record is replaced."""
        plan.clear()
        plan.update(codes)
        watcher = Watcher()
        given = {"folder": tmp_path / "run", "replace": True, "observer": watcher} | (options or {})
        record, any_started = execute(spec, command="c", should_stop=stop, **given)
        return record, any_started, watcher

    return run


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "model_index.json", "weights"):
        (folder / name).write_text("{}")
    return f"path:{folder}"
