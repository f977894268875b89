"""Watch the heartbeats of the ranks that this process has started, and kill a rank that has become silent."""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

from editr1.parallel.heartbeat import BEAT_SECONDS, HeartbeatWatch, Silence, rank_file

log = logging.getLogger("editr1.stage")


class RankWatch(threading.Thread):
    """Thread that watches the ranks of one node.

    The daemon thread runs until the process exits. After a rank was killed, torchrun ends the other ranks of the
    node. The exit code is 137 (SIGKILL), which is retried.
    """

    def __init__(self, folder: Path, timeout: float, note: Path) -> None:
        """Watch the heartbeat files in ``folder``. ``timeout`` is in seconds. A silent rank is reported in the file ``note``."""
        super().__init__(name="editr1-rank-watch", daemon=True)
        self.killed: list[Silence] = []
        """The ranks that were killed."""
        self._folder, self._timeout, self._note = folder, timeout, note
        self._watches: dict[int, HeartbeatWatch] = {}
        self._named: set[int] = set()
        self._stop = threading.Event()

    def run(self) -> None:
        """Observe the ranks every few seconds."""
        while not self._stop.wait(min(BEAT_SECONDS, self._timeout / 10)):
            try:
                self._observe()
            except Exception as error:
                log.warning("the heartbeats of the ranks could not be read and are read again later: %s", error)

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()

    def _observe(self) -> None:
        ranks = local_ranks()
        for pid in self._watches.keys() - ranks.keys():
            del self._watches[pid]
        silences = []
        for pid, (rank, local_rank) in ranks.items():
            if pid not in self._watches:
                file = rank_file(self._folder, local_rank)
                self._watches[pid] = HeartbeatWatch(file, f"rank {rank}", pid, self._timeout)
            silence = self._watches[pid].observe()
            if silence is None:
                if pid in self._named:
                    log.info("rank %d (process %d) writes its heartbeat again", rank, pid)
                    self._named.discard(pid)
                continue
            silences.append(silence)
            if silence.is_over_timeout:
                self._kill(silence)
            elif pid not in self._named:
                self._named.add(pid)
                log.warning("%s", silence)
        self._write_note(silences)

    def _kill(self, silence: Silence) -> None:
        log.error("%s", silence)
        self.killed.append(silence)
        del self._watches[silence.pid]
        with suppress(OSError):
            os.killpg(silence.pid, signal.SIGKILL)  # torchrun starts each rank as the leader of a process group

    def _write_note(self, silences: list[Silence]) -> None:
        if silences:
            self._note.write_text("; ".join(str(item) for item in silences), encoding="utf-8")
        else:
            self._note.unlink(missing_ok=True)


def local_ranks() -> dict[int, tuple[int, int]]:
    """Return the ranks that are children of this process, as a mapping from process id to (rank, rank on this node)."""
    import psutil  # type: ignore[import-untyped]

    found: dict[int, tuple[int, int]] = {}
    for child in psutil.Process().children():
        with suppress(psutil.Error, KeyError, ValueError):
            environment = child.environ()
            if child.status() != psutil.STATUS_ZOMBIE:
                found[child.pid] = int(environment["RANK"]), int(environment["LOCAL_RANK"])
    return found
