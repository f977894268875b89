"""Describe which process executes a run, or executed it last, for ``editr1 runs show``."""

from __future__ import annotations

import time
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from editr1.artifacts import ArtifactStore
from editr1.durations import format_duration, format_minute
from editr1.runs.claim import STALE_SECONDS, newest_claim


class HolderState(StrEnum):
    """What the claim of a process on a run and its heartbeat show about the process."""

    EXECUTING = "executing"
    RELEASED = "released"
    """The process ended the execution of the run."""
    EXITED = "exited"
    """The process was killed or crashed. This is only known on its machine."""
    STALE = "stale"
    """The last heartbeat is older than :data:`editr1.runs.claim.STALE_SECONDS`."""
    UNKNOWN = "unknown"
    """There is no heartbeat with a time."""


class RunHolder(BaseModel):
    """The process with the newest claim on a run. Times are in seconds since the epoch, on the clock of its machine."""

    model_config = ConfigDict(frozen=True)

    host: str
    """Host name of the machine."""
    pid: int
    """Process id."""
    since: float
    """Time at which the process began to execute the run."""
    last_heartbeat: float | None
    """Time of the last heartbeat; None if it is unknown."""
    state: HolderState
    """Whether the process still executes the run."""

    def sentence(self, now: float) -> str:
        """Return one sentence about the process, for the time ``now`` in seconds since the epoch."""
        who = f"process {self.pid} on {self.host}"
        since = f"since {format_minute(self.since)}"
        age = (
            "unknown" if self.last_heartbeat is None else f"{format_duration(max(0.0, now - self.last_heartbeat))} ago"
        )
        match self.state:
            case HolderState.EXECUTING:
                return f"executed by {who}, {since}; last heartbeat: {age}"
            case HolderState.RELEASED:
                return f"not being executed; last executed by {who}, {since}"
            case HolderState.EXITED:
                return (
                    f"not being executed: {who}, which executed the run {since}, has exited without releasing it "
                    f"(last heartbeat: {age}); repeat the command that started the run to continue it"
                )
            case _:
                return (
                    f"probably not being executed: {who}, which executed the run {since}, writes no heartbeat "
                    f"(last heartbeat: {age}); repeat the command that started the run to take it over"
                )


def run_holder(store: ArtifactStore, run: str, *, now: float | None = None) -> RunHolder | None:
    """Return the process with the newest claim on a run, or None if the run has never been claimed.

    The operator executes runs without claims. Whether a heartbeat is stale is judged by the clock of this machine, so a
    difference between the clocks of the two machines can change the answer. A takeover does not depend on it.

    Raises:
        StoreError: the store cannot be read.
    """
    claim = newest_claim(store, run)
    if claim is None:
        return None
    beat = claim.heartbeat()
    current = time.time() if now is None else now
    if beat.ended:
        state = HolderState.RELEASED
    elif claim.holder.is_dead():
        state = HolderState.EXITED
    elif beat.time is None:
        state = HolderState.UNKNOWN
    else:
        state = HolderState.EXECUTING if current - beat.time < STALE_SECONDS else HolderState.STALE
    holder = claim.holder
    return RunHolder(host=holder.host, pid=holder.pid, since=holder.started, last_heartbeat=beat.time, state=state)
