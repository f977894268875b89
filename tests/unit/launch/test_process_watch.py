"""The local launcher notices a stage process that hangs, and a reward server that no longer answers."""

from __future__ import annotations

import http.server
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from editr1.config.store import StoreConfig
from editr1.launch.launcher import Observation
from editr1.launch.local import health_probe
from editr1.launch.local import watch as watch_module
from editr1.launch.local.health_probe import HealthProbe, ask
from editr1.launch.local.launcher import LocalHandle, LocalLauncher, LocalRequest
from editr1.parallel.heartbeat import FOLDER_VARIABLE
from editr1.runs.job import RuntimeSettings, StageJob

STOPPED = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"


def start(folder: Path, program: str, timeout: float) -> tuple[LocalLauncher, LocalHandle]:
    runtime = RuntimeSettings().model_copy(update={"heartbeat_timeout_seconds": timeout})
    job = StageJob(
        run="r",
        stage="s",
        kind="serve",
        seed=0,
        store=StoreConfig(url=folder.as_uri()),
        workdir=folder,
        runtime=runtime,
    )
    launcher = LocalLauncher()
    environment = {FOLDER_VARIABLE: str(folder / "heartbeats")}
    return launcher, launcher.submit(LocalRequest((sys.executable, "-I", "-S", "-c", program), environment, job))


def until_it_ends(launcher: LocalLauncher, handle: LocalHandle) -> tuple[list[str], Observation]:
    """Return the notes about the process, without repetitions, and the last observation."""
    notes: list[str] = []
    end = time.monotonic() + 60
    while (seen := launcher.observe(handle)).running:
        assert time.monotonic() < end
        if seen.note and seen.note not in notes:
            notes.append(seen.note)
        time.sleep(0.02)
    return notes, seen


def test_stopped_process_is_reported_once_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "POLL_SECONDS", 0.05)
    notes, seen = until_it_ends(*start(tmp_path, STOPPED, 1.0))
    assert seen.exit_code == 137
    assert len(notes) == 2 and "stage s (process" in notes[0] and "it is killed after 1.0 s" in notes[0]
    assert seen.reason == notes[1] and "it is killed now" in seen.reason


def test_stopped_process_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    launcher, handle = start(tmp_path, STOPPED, 300.0)
    time.sleep(0.5)
    began = time.monotonic()
    launcher.cancel(handle, 60.0)
    assert launcher.observe(handle).exit_code == 143
    assert time.monotonic() - began < 30.0


def test_note_about_a_silent_rank_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "POLL_SECONDS", 0.05)
    launcher, handle = start(tmp_path, "import time; time.sleep(600)", 300.0)
    try:
        handle.request.job.note_file.write_text("rank 1 is silent for 60 s")
        time.sleep(0.1)
        assert launcher.observe(handle).note == "rank 1 is silent for 60 s"
        handle.request.job.note_file.unlink()
        time.sleep(0.1)
        assert launcher.observe(handle).note == ""
    finally:
        launcher.cancel(handle, 5.0)


class Server(http.server.BaseHTTPRequestHandler):
    statuses: ClassVar[dict[str, int]] = {"/healthz": 200, "/readyz": 200}

    def do_GET(self) -> None:
        self.send_response(self.statuses[self.path])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Server, "statuses", {"/healthz": 200, "/readyz": 200})
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_address[1]}"
    served.shutdown()
    served.server_close()


def test_server_is_restarted_after_six_failed_liveness_probes_in_a_row(server: str) -> None:
    probe = HealthProbe(server)
    Server.statuses["/healthz"] = 500
    for _ in range(health_probe.LIVENESS_FAILURES - 1):
        probe.probe()
        assert "does not answer its liveness probe (500" in probe.health.problem
    assert not probe.health.must_restart
    Server.statuses["/healthz"] = 200
    probe.probe()
    assert not probe.health.problem
    Server.statuses["/healthz"] = 500
    for _ in range(health_probe.LIVENESS_FAILURES):
        probe.probe()
    assert probe.health.must_restart


def test_server_that_stays_unready_is_restarted(server: str) -> None:
    now = [0.0]
    probe = HealthProbe(server, clock=lambda: now[0])
    Server.statuses["/readyz"] = 503
    probe.probe()
    now[0] = health_probe.UNREADY_SECONDS - 1
    probe.probe()
    assert "is not ready (503" in probe.health.problem and not probe.health.must_restart
    Server.statuses["/readyz"] = 200
    probe.probe()
    Server.statuses["/readyz"] = 503
    now[0] += 10.0
    probe.probe()
    assert not probe.health.must_restart
    now[0] += health_probe.UNREADY_SECONDS
    probe.probe()
    assert probe.health.must_restart


def test_server_that_hangs_fails_its_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_probe, "TIMEOUT_SECONDS", 0.2)
    hanging = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)  # accepts connections, but never answers
    assert ask(f"http://127.0.0.1:{hanging.server_address[1]}/healthz") == "no answer within 0.2 s"
    hanging.server_close()
    assert "ConnectError" in ask(f"http://127.0.0.1:{hanging.server_address[1]}/healthz")


def test_hanging_server_is_killed_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PERIOD_SECONDS", 0.05), ("TIMEOUT_SECONDS", 0.05), ("LIVENESS_FAILURES", 3)):
        monkeypatch.setattr(health_probe, name, value)
    monkeypatch.setattr(watch_module, "POLL_SECONDS", 0.02)
    hanging = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    url = f"http://127.0.0.1:{hanging.server_address[1]}"
    monkeypatch.setattr("editr1.parallel.heartbeat.WARN_SECONDS", 0.0)  # the process is silent as well
    launcher, handle = start(tmp_path, "import time; time.sleep(600)", 300.0)
    (tmp_path / "service.json").write_text(f'{{"urls": ["{url}"]}}')
    assert launcher.observe(handle).ready_urls == (url,)
    _, seen = until_it_ends(launcher, handle)
    hanging.server_close()
    assert seen.exit_code == 137
    assert seen.reason.startswith(f"the reward server at {url} does not answer its liveness probe (no answer within")
