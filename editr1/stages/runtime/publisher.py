"""Write the checkpoints and the progress of a stage to the artifact store, without stopping the training during an outage."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from editr1.artifacts import ArtifactStore, OutageWait, StoreUnreachable, open_store
from editr1.artifacts.outage import OutageTolerance
from editr1.durations import format_duration
from editr1.runs.checkpoints import StageCheckpoints
from editr1.runs.job import StageJob
from editr1.stages.runtime.waiting_checkpoints import WaitingCheckpoints
from editr1.telemetry import Interrupted

_FIRST_DELAY = 2.0
_LONGEST_DELAY = 10.0

log = logging.getLogger("editr1.stage")


def open_stage_store(job: StageJob, should_stop: Callable[[], bool]) -> ArtifactStore:
    """Open the store of a stage. During an outage, its operations wait for ``outage_seconds`` of the store's settings.

    They raise Interrupted if ``should_stop`` returns True during a wait.
    """

    def check_stop() -> None:
        if should_stop():
            raise Interrupted("stopped while the artifact store was unreachable")

    return open_store(job.store, OutageWait(job.store.outage_seconds, check_stop=check_stop))


def write_checkpoint(store: ArtifactStore, job: StageJob, folder: Path, step: int, *, repair: bool = False) -> None:
    """Commit a checkpoint of a stage to the store, then write the record that refers to it. For ``repair``, see ``commit``."""
    manifest = store.commit(
        folder,
        repair=repair,
        kind="checkpoint",
        stage=str(job.kind),
        run=job.run,
        config_digest=job.key,
        git_revision=job.git_revision,
    )
    StageCheckpoints(store, job.run, job.stage, job.key).add(step, manifest.digest)


def write_earlier_checkpoints(job: StageJob, should_stop: Callable[[], bool]) -> None:
    """Write the checkpoints that an earlier attempt of the stage left on this machine during an outage.

    Call it before the ranks start, because every rank looks for the newest checkpoint in the store.
    """
    store = open_stage_store(job, should_stop)
    written = WaitingCheckpoints(job).write_all(lambda folder, step: write_checkpoint(store, job, folder, step))
    if written:
        log.info("checkpoints of an earlier attempt that were written to the store: %d", written)


class Publisher:
    """Publisher of checkpoints and progress. While the store is unreachable, they wait on the local disk.

    A background thread tries again until the store answers. If the outage lasts longer than ``seconds``, or if the store refuses
    a checkpoint in the background, :attr:`failure` is set: the stage must then stop, and :meth:`checkpoint` raises it.

    Args:
        waiting: queue of the checkpoints that wait.
        write_checkpoint: writes the checkpoint in a folder, with its step, to the store. It must not wait during an outage.
        write_progress: writes the progress to the store. It must not wait during an outage.
        seconds: limit on the duration of an outage.
    """

    def __init__(
        self,
        waiting: WaitingCheckpoints,
        write_checkpoint: Callable[[Path, int], None],
        write_progress: Callable[[], None],
        seconds: float,
    ) -> None:
        self.failure: Exception | None = None
        self._waiting, self._write_checkpoint, self._write_progress = waiting, write_checkpoint, write_progress
        self._tolerance = OutageTolerance(seconds)
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def checkpoint(self, folder: Path, step: int) -> None:
        """Write a checkpoint, or keep it on the local disk until the store answers.

        Raises:
            StoreError: the store refuses the checkpoint, or the outage lasted too long. The checkpoint is on the local disk then.
        """
        if not self._is_retrying():
            try:
                self._write_checkpoint(folder, step)
                self._write_progress()
                return
            except StoreUnreachable as error:
                self._note(error)
        self._waiting.add(folder, step)
        self._retry_in_background()
        log.warning("the checkpoint of step %d waits in %s until the store answers", step, self._waiting.folder)
        if self.failure is not None:
            raise self.failure

    def progress(self) -> None:
        """Write the progress, or leave it to the background thread if the store is unreachable."""
        if self._is_retrying():
            return
        try:
            self._write_progress()
        except StoreUnreachable as error:
            self._note(error)
            self._retry_in_background()

    def stop(self) -> None:
        """End the background thread, and try once more to write what waits. What remains is left for the next attempt."""
        with self._lock:
            thread = self._thread
        if thread is None:
            return
        self._end.set()
        thread.join(_FIRST_DELAY)
        if thread.is_alive():
            return
        try:
            self._write_all()
        except Exception as error:
            log.warning(
                "%s; the checkpoints in %s are written by the next attempt on this machine", error, self._waiting.folder
            )

    def done(self) -> None:
        """End the background thread, and remove the waiting checkpoints, because the stage is complete."""
        self._end.set()
        self._waiting.discard()

    def _is_retrying(self) -> bool:
        with self._lock:
            return self._thread is not None

    def _retry_in_background(self) -> None:
        with self._lock:
            if self._thread is None and self.failure is None:
                self._thread = threading.Thread(target=self._retry, name="editr1-publisher", daemon=True)
                self._thread.start()

    def _retry(self) -> None:
        delay = _FIRST_DELAY
        while not self._end.wait(delay):
            try:
                self._write_all()
            except StoreUnreachable as error:
                try:
                    self._note(error)
                except StoreUnreachable:
                    log.error("the store was unreachable for too long; the stage stops: %s", error)
                    self.failure = error
                    return
                delay = min(2 * delay, _LONGEST_DELAY)
            except Exception as error:
                log.error("a checkpoint cannot be written to the store; the stage stops: %s", error)
                self.failure = error
                return
            else:
                log.info("the store answers again")
                self._tolerance.answered()
                with self._lock:
                    self._thread = None
                return

    def _write_all(self) -> None:
        self._waiting.write_all(self._write_checkpoint)
        self._write_progress()

    def _note(self, error: StoreUnreachable) -> None:
        """Report the outage if that is due. Raises ``error`` if it lasted too long."""
        self._tolerance.record(error)
        if self._tolerance.notice_is_due():
            left = format_duration(self._tolerance.remaining)
            log.warning("%s; the stage goes on, and tries again for up to %s", error, left)
