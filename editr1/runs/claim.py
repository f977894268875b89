"""Determine which process executes a run, by means of claims and a heartbeat in the artifact store.

Two commands on different machines can start the same run in a shared store. The claims of a run are numbered records
that can be written only once (``If-None-Match``), so exactly one process gets the next number. The process that wrote
the claim with the highest number executes the run, and increments a heartbeat counter in the store. Other processes
observe whether the counter changes. They measure the time on their own clocks, so clock skew between machines has no
effect.
"""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from editr1.artifacts import AlreadyExists, ArtifactStore, StoreError, StoreUnreachable
from editr1.artifacts.outage import OutageTolerance
from editr1.durations import format_minute
from editr1.runs.stored import DamagedRecord, dump_stored, parse_stored, read_stored, warn_once

BEAT_SECONDS = 5.0
"""Interval in seconds between two updates of the heartbeat."""
STALE_SECONDS = 30.0
"""Time in seconds without a new heartbeat after which another process takes over the run."""

_NAME = re.compile(r"[0-9]{6}\.json")

log = logging.getLogger("editr1.runs")


class Holder(BaseModel):
    """A process that executes a run, or that executed it earlier.

    ``started`` is in seconds since the epoch, on the clock of its machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    """Host name of the machine."""
    machine: str
    """Identifier of the machine's boot and of the process namespace.

    ``pid`` can only be looked up by processes with the same identifier.
    """
    pid: int
    """Process id."""
    born: str
    """Start time of the process in the kernel's clock ticks, which distinguishes processes that reuse the same id; empty if unknown."""
    started: float
    """Time at which the process began to execute the run."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {format_minute(self.started)}"

    def is_dead(self) -> bool:
        """Return True if the process is known to have exited.

        This can only be known for processes on this machine.
        """
        return self.machine == _machine() and _born(self.pid) != self.born


_UNKNOWN = Holder(host="an unknown machine", machine="", pid=0, born="", started=0.0)


class Beat(BaseModel):
    """The heartbeat of the process that executes a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int
    """Number of updates."""
    ended: bool = False
    """True if the process has released the run."""
    time: float | None = None
    """Time of the update on the clock of the process, in seconds since the epoch. It is only shown to users."""


class Claim:
    """A numbered claim on a run in the artifact store.

    Only the process that wrote the claim updates its heartbeat.
    """

    def __init__(self, store: ArtifactStore, run: str, number: int, holder: Holder) -> None:
        self.number, self.holder = number, holder
        self._store, self._run = store, run

    def without_waiting(self) -> Claim:
        """Return the same claim with accesses to the store that do not wait during an outage."""
        return Claim(self._store.without_waiting(), self._run, self.number, self.holder)

    @property
    def is_newest(self) -> bool:
        """Return True if no other process has taken over the run."""
        newest = _newest_number(self._store, self._run)
        # A list that shows a claim which cannot be read does not end a run.
        return newest <= self.number or self._store.get_record(_claim_key(self._run, newest)) is None

    def beat(self, count: int, *, ended: bool = False) -> None:
        """Update the heartbeat. If ``ended`` is True, release the run."""
        self._store.put_record(self._beat_key, dump_stored(Beat(count=count, ended=ended, time=time.time())))

    def last_beat(self) -> tuple[int, bool]:
        """Return the heartbeat counter, and whether the process has released the run."""
        beat = self.heartbeat()
        return beat.count, beat.ended

    def heartbeat(self) -> Beat:
        """Return the last heartbeat. If there is none or it is damaged, its counter is 0."""
        data = self._store.get_record(self._beat_key)
        if data is None:
            return Beat(count=0)
        where = f"{self._store.url}: records/{self._beat_key}"
        try:
            return parse_stored(Beat, data, where, remedy="it is ignored", ignore_unknown=True)
        except DamagedRecord as error:
            warn_once(str(error))
            return Beat(count=0)

    @property
    def _beat_key(self) -> str:
        return f"runs/{self._run}/heartbeats/{self.number:06d}.json"


def newest_claim(store: ArtifactStore, run: str) -> Claim | None:
    """Return the newest claim on a run, or None if the run has never been claimed."""
    number = _newest_number(store, run)
    if not number:
        return None
    try:
        holder = read_stored(store, Holder, _claim_key(run, number), remedy="it is ignored") or _UNKNOWN
    except DamagedRecord as error:
        warn_once(str(error))
        holder = _UNKNOWN
    return Claim(store, run, number, holder)


def take(store: ArtifactStore, run: str, after: Claim | None) -> Claim | None:
    """Claim the run for this process.

    Returns None if another process has claimed the run since the claim ``after`` was read.
    """
    claim = Claim(store, run, (after.number if after else 0) + 1, _this_process())
    try:
        store.put_record(_claim_key(run, claim.number), dump_stored(claim.holder), if_none_match=True)
    except AlreadyExists:
        return None
    return claim


class Watch:
    """Observer of another process's heartbeat, which measures the time on the clock of this process."""

    def __init__(self, claim: Claim, clock: Callable[[], float] = time.monotonic) -> None:
        self._claim, self._clock = claim, clock
        self._count: int | None = None
        self._changed = self._looked = clock()

    def is_executing(self) -> bool:
        """Return False if the process has released the run, has exited, or has not updated its heartbeat for :data:`STALE_SECONDS`.

        A time in which this process did not look does not count: during an outage of the store, in which it waits, the other
        process cannot write its heartbeat either.
        """
        looked = self._looked
        count, ended = self._claim.last_beat()
        self._looked = self._clock()
        if self._looked - looked > STALE_SECONDS:
            self._changed = self._looked
        if ended or self._claim.holder.is_dead():
            return False
        if count != self._count:
            self._count, self._changed = count, self._clock()
        return self._clock() - self._changed < STALE_SECONDS


class Heartbeat:
    """Context manager that updates the heartbeat of this process in a background thread.

    Attributes:
        lost: set when another process has taken over the run. This process must then stop, and must no longer write
            the run's record.
    """

    def __init__(self, claim: Claim) -> None:
        self._claim, self._count = claim.without_waiting(), 1
        self._stop, self.lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="editr1-heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        try:
            self._claim.beat(self._count)
        except StoreUnreachable as error:
            log.warning("the heartbeat of the run could not be written and will be written later: %s", error)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if not self.lost.is_set():
            try:
                self._claim.beat(self._count + 1, ended=True)
            except StoreError as error:
                log.warning(
                    "the run could not be released, so other processes wait until its heartbeat is stale: %s", error
                )

    def _run(self) -> None:
        outage = OutageTolerance(math.inf)
        while not self._stop.wait(BEAT_SECONDS):
            try:
                if not self._claim.is_newest:
                    self.lost.set()
                    return
                self._count += 1
                self._claim.beat(self._count)
                outage.answered()
            except StoreError as error:
                outage.record(error)
                if outage.notice_is_due():
                    log.warning("the heartbeat of the run could not be updated; the update will be retried: %s", error)


def _claim_key(run: str, number: int) -> str:
    return f"runs/{run}/claims/{number:06d}.json"


def _newest_number(store: ArtifactStore, run: str) -> int:
    names = (key.rsplit("/", 1)[1] for key in store.list_records(f"runs/{run}/claims/"))
    return max((int(name[:6]) for name in names if _NAME.fullmatch(name)), default=0)


def _this_process() -> Holder:
    pid = os.getpid()
    return Holder(host=socket.gethostname(), machine=_machine(), pid=pid, born=_born(pid), started=time.time())


def _machine() -> str:
    """Return an identifier of this machine's current boot and of this process's PID namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        return f"{boot.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} without /proc"


def _born(pid: int) -> str:
    """Return the start time of a process in clock ticks since the boot.

    The result is empty if the process or /proc does not exist.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
