"""Watch one stage process on this machine: detect and report that it hangs, and kill it if it does not recover."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from editr1.launch.local.health_probe import HealthProbe
from editr1.parallel.heartbeat import HeartbeatWatch, stage_file
from editr1.runs.job import StageJob

POLL_SECONDS = 1.0
"""Minimum interval in seconds between two observations of a process."""


class ProcessWatch:
    """Observer of the process of a stage: its heartbeat, the heartbeats of its ranks, and the health of its reward server."""

    def __init__(self, process: subprocess.Popen[bytes], job: StageJob, heartbeats: Path) -> None:
        self.killed_because = ""
        """Reason why this watch killed the process; empty if it did not."""
        self.note = ""
        """Reason why the process may be hanging at the moment; empty if there is none. The text does not change while
        the problem lasts."""
        self._process, self._job, self._observed, self._problem = process, job, 0.0, ""
        timeout = job.runtime.heartbeat_timeout_seconds
        self._heartbeat = HeartbeatWatch(stage_file(heartbeats), f"stage {job.stage}", process.pid, timeout)
        self._probe: HealthProbe | None = None

    def urls(self) -> tuple[str, ...]:
        """Return the addresses of a reward server that has been ready since its start.

        Empty for other servers and processes.
        """
        file = self._job.workdir / "service.json"
        try:
            urls = tuple(json.loads(file.read_bytes())["urls"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # absent, incomplete or damaged: not ready
            return ()
        if urls and self._probe is None:
            self._probe = HealthProbe(urls[0]).start()
        return urls

    def observe(self) -> None:
        """Update :attr:`note`, and kill the process if it hangs for too long. Further calls within a second do nothing."""
        now = time.monotonic()
        if self.killed_because or now - self._observed < POLL_SECONDS:
            return
        self._observed = now
        silence = self._heartbeat.observe()
        if silence is not None and silence.is_over_timeout:
            self._kill(str(silence))
            return
        health = self._probe.health if self._probe else None
        if health and health.must_restart:
            self._kill(health.problem)
            return
        if silence is not None:
            # The duration of the silence grows. The first text is kept, so that it is reported once.
            self.note = self.note or str(silence)
            return
        self.note = self._note_of_ranks() or (health.problem if health else "")

    def stop(self) -> None:
        """Stop the watch."""
        if self._probe:
            self._probe.stop()

    def _note_of_ranks(self) -> str:
        """Return the note of the stage about silent ranks. While ranks are silent, the first note is returned."""
        file = self._job.note_file
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        self._problem = (self._problem or text) if text else ""
        return self._problem

    def _kill(self, reason: str) -> None:
        """Kill the process group. A process that hangs does not react to SIGTERM."""
        self.killed_because = self.note = reason
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
