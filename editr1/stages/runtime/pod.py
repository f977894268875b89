"""Main program of a pod: run one attempt of a stage and copy its progress and logs to the artifact store.

    python -m editr1.stages.runtime.pod sft

The pod's main process resolves the references in the job file and starts the stage as a child process. The child runs
the same program as a stage on a local machine. The main process forwards signals to the child. It writes progress,
the last log lines of every rank, spans and the exit code to the store. It does not import torch, so it uses little
memory and survives if the kernel's OOM killer ends a rank. If the whole pod is killed, the attempt's record has no
exit code. The next attempt counts such records as lost attempts.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_before_delay,
    wait_exponential,
)

from editr1.artifacts import ArtifactStore, OutageWait, StoreError, open_store
from editr1.artifacts.outage import OutageTolerance
from editr1.artifacts.s3_errors import ACCEPTED_VARIABLE
from editr1.errors import ExitCode, shell_code
from editr1.parallel.heartbeat import BEAT_SECONDS, FOLDER_VARIABLE, HeartbeatWatch, stage_file
from editr1.runs.checkpoints import StageCheckpoints
from editr1.runs.job import CONFIG_VARIABLE, POD_VARIABLE, StageJob, make_workdir, read_job
from editr1.runs.kinds import KINDS
from editr1.runs.live import (
    LiveFiles,
    LiveProgress,
    PodAttempt,
    ProgressEstimator,
    lost_attempts,
    retries_used,
    uses_retry,
)
from editr1.runs.record import add_unsubmitted_stage, submitted_stage
from editr1.runs.resolve import HubUnreachable, check_key, resolve_job
from editr1.runs.stored import dump_stored
from editr1.stages.runtime.entry import exit_code
from editr1.stages.runtime.log_tail import LogTail
from editr1.telemetry import Span, configure, flush, span, traceparent
from editr1.telemetry.gauges import stage_gauges
from editr1.telemetry.log import configure_logging
from editr1.telemetry.progress import ProgressReader

T = TypeVar("T")
OUTAGE_SECONDS = 120.0
SPANS_SECONDS = 30.0

log = logging.getLogger("editr1.pod")


def main(kind: str) -> int:
    """Run one attempt of a stage and return the exit code of the pod."""
    # The kernel only delivers signals to the first process of a container if it has a handler for them.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    configure_logging()
    try:
        job = read_job()
        configure_logging(job.runtime.log_format)
        check_key(job)
        store = open_store(job.store, OutageWait(job.store.outage_seconds))
        resolved = retry_hub_outages(lambda: resolve_job(job, store))
        if not job.key:
            _create_record(resolved, store)
        return _Attempt(kind, resolved, store).run()
    except Exception as error:
        return exit_code(error)


def retry_hub_outages(action: Callable[[], T], seconds: float = OUTAGE_SECONDS) -> T:
    """Call ``action`` and return its result. Retry for up to ``seconds`` while the hub is unreachable.

    Without these retries, an outage would quickly use up the restarts of the pod, which have no delay. The store waits by itself.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(HubUnreachable),
        wait=wait_exponential(multiplier=1, max=20),
        stop=stop_before_delay(seconds),
        before_sleep=_log_retry,
        sleep=time.sleep,
        reraise=True,
    )
    return retrying(action)


def _log_retry(state: RetryCallState) -> None:
    assert state.outcome is not None and state.next_action is not None
    log.warning("%s; retrying in %.0f s", state.outcome.exception(), state.next_action.sleep)


def _create_record(job: StageJob, store: ArtifactStore) -> None:
    """Create the record of a stage whose chart was installed with Helm directly, without ``editr1 submit``."""
    stage = submitted_stage(job, job.runtime.release)
    add_unsubmitted_stage(store, job.run, job.seed, stage, f"helm install {stage.release}")


class _Attempt:
    def __init__(self, kind: str, job: StageJob, store: ArtifactStore) -> None:
        self._kind, self._job, self._store = kind, job, store
        self._files = LiveFiles(store, job.run, job.stage, job.key)
        # While the stage runs, an outage must not block the main process, which forwards signals.
        self._live = LiveFiles(store.without_waiting(), job.run, job.stage, job.key)
        wait = OutageWait(min(OUTAGE_SECONDS, job.store.outage_seconds), check_stop=self._check_leaving)
        self._last_files = LiveFiles(open_store(job.store, wait), job.run, job.stage, job.key)
        self._outage = OutageTolerance(math.inf)
        self._every, self._retries = job.runtime.publish_seconds, job.runtime.retries
        self._spans = job.workdir / "spans.jsonl"
        self._tail = LogTail()
        self._lines = ProgressReader(job.progress_file)
        self._speed = ProgressEstimator()
        self._written: LiveProgress | None = None
        self._spans_seen: float | None = None
        self._record = PodAttempt(
            pod=os.environ.get(POD_VARIABLE, "local"),
            uid=os.environ.get("EDITR1_POD_UID", ""),
            node=os.environ.get("EDITR1_NODE", ""),
            started=time.time(),
            submission=os.environ.get("TRACEPARENT", "")[3:35],
        )
        self._stored = self._record
        """The record of this attempt that was last written to the store."""

    def run(self) -> int:
        job = self._job
        file = self._write_job()
        current_attempt = (self._record.pod, self._record.submission)
        earlier = [item for item in self._files.attempts() if (item.pod, item.submission) == current_attempt]
        checkpoint = StageCheckpoints(self._store, job.run, job.stage, job.key).newest() or ""
        self._record = self._record.model_copy(update={"checkpoint": checkpoint})
        self._files.write_attempt(self._record)
        self._stored = self._record
        # Without a submission id, a release that was reinstalled with more memory cannot be distinguished from the
        # earlier release.
        lost = lost_attempts(earlier, checkpoint) if self._record.submission else 0
        if self._retries is not None and lost > self._retries:
            self._tail.add(
                f"ERROR attempts that ended without an exit code or a new checkpoint: {lost}; no retries are left (retries:"
                f" {self._retries}); check whether the pod ran out of memory"
            )
            log.error("%s", self._tail.last_error())
            return self._finish(ExitCode.UNEXPECTED, 0)
        configure("editr1-pod", self._spans, **{"editr1.run": job.run, "editr1.stage": job.stage})
        end_gauges = stage_gauges(self._speed.current, max(5.0, self._every), **{"editr1.run": job.run})
        with span(Span.POD, pod=self._record.pod, stage=job.stage, attempt=len(earlier) + 1) as current:
            try:
                code = self._run_stage(file)
            except SystemExit:  # SIGTERM was received before the stage process was started.
                self._record = self._record.model_copy(update={"leaving": True})
                self._finish(ExitCode.TERMINATED, 0)
                raise
            current.set_attribute("exit_code", code)
        self._publish()
        end_gauges()
        flush()
        return self._finish(shell_code(code), retries_used(earlier))

    def _write_job(self) -> Path:
        """Write the resolved job file, which the stage process reads, and return its path."""
        job = self._job
        file = make_workdir(job) / "job.json"
        runtime = job.runtime.model_copy(update={"span_file": self._spans})
        file.write_bytes(dump_stored(job.model_copy(update={"runtime": runtime})))
        return file

    def _run_stage(self, file: Path) -> int:
        job, beats = self._job, self._job.workdir / "heartbeats"
        beats.mkdir(exist_ok=True)
        environment = {**os.environ, CONFIG_VARIABLE: str(file), "PYTHONSAFEPATH": "1", FOLDER_VARIABLE: str(beats)}
        environment["TRACEPARENT"] = traceparent() or ""
        environment[ACCEPTED_VARIABLE] = "1"  # The attempt has been written to the store.
        if KINDS[job.kind].distributed:
            logs = job.workdir / "logs"
            logs.mkdir(exist_ok=True)
            environment |= {"PET_LOG_DIR": str(logs), "PET_TEE": "3"}
        process = subprocess.Popen(
            [sys.executable, "-m", f"editr1.stages.{self._kind}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signal_forwarder(process))
        assert process.stdout is not None
        pump = threading.Thread(target=self._pump, args=(process.stdout,), daemon=True)
        pump.start()
        timeout = job.runtime.heartbeat_timeout_seconds
        code = self._watch(process, HeartbeatWatch(stage_file(beats), f"stage {job.stage}", process.pid, timeout))
        pump.join(10)
        return code

    def _signal_forwarder(self, process: subprocess.Popen[str]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, _frame: FrameType | None) -> None:
            self._record = self._record.model_copy(update={"leaving": True})
            process.send_signal(number)

        return handle

    def _pump(self, lines: IO[str]) -> None:
        for line in lines:
            sys.stdout.write(line)
            sys.stdout.flush()
            self._tail.add(line.rstrip("\n"))

    def _watch(self, process: subprocess.Popen[str], heartbeat: HeartbeatWatch) -> int:
        """Wait until the stage's process ends, and return its exit code. Kill it if it is silent for too long."""
        while True:
            try:
                return process.wait(min(self._every, BEAT_SECONDS))
            except subprocess.TimeoutExpired:
                silence = heartbeat.observe()
                if silence is not None:
                    self._tail.add(f"{'ERROR ' if silence.is_over_timeout else ''}{silence}")
                    log.log(logging.ERROR if silence.is_over_timeout else logging.WARNING, "%s", silence)
                if silence is not None and silence.is_over_timeout:
                    os.killpg(process.pid, signal.SIGKILL)
                self._publish()

    def _finish(self, code: int, used: int) -> int:
        reason = "" if code == 0 else self._tail.last_error()
        self._record = self._record.model_copy(update={"ended": time.time(), "exit_code": code, "reason": reason})
        self._publish(last=True)
        spent = self._retries is not None and used >= self._retries
        if code == 0 and self._job.downloads is not None:
            shutil.rmtree(
                self._job.workdir, ignore_errors=True
            )  # All results are in the store, and a claim outlives the pod.
        if uses_retry(code) and spent:
            log.error("the stage failed with exit code %d, and no retries are left (retries: %d)", code, self._retries)
            return ExitCode.UNEXPECTED
        return code

    def _publish(self, *, last: bool = False) -> None:
        """Write all changes since the last call to the store.

        If the store fails, the next call writes the remaining changes. The last call waits up to two minutes for the store, so that
        the end of the attempt is recorded.
        """
        files = self._last_files if last else self._live
        try:
            self._speed.add(self._lines.new())
            progress = self._speed.current()
            if progress is not None and progress != self._written:
                files.write_progress(progress)
                self._written = progress
            if self._spans_changed(0 if last else SPANS_SECONDS):
                files.write_spans(self._record, self._spans.read_bytes())
            files.write_log(self._record, self._tail.text())
            if self._record != self._stored:
                files.write_attempt(self._record)
                self._stored = self._record
            self._outage.answered()
        except StoreError as error:
            self._outage.record(error)
            if last or self._outage.notice_is_due():
                log.warning("progress could not be written to the store and will be written later: %s", error)

    def _check_leaving(self) -> None:
        if self._record.leaving:
            raise StoreError("the pod is being terminated, so it does not wait for the store")

    def _spans_changed(self, every: float) -> bool:
        if not self._spans.is_file():
            return False
        modified = self._spans.stat().st_mtime
        if self._spans_seen is not None and (modified == self._spans_seen or modified - self._spans_seen < every):
            return False
        self._spans_seen = modified
        return True


def _exit(_number: int, _frame: FrameType | None) -> None:
    """Signal handler that exits the process. It is installed until the stage process is started."""
    raise SystemExit(ExitCode.TERMINATED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
