"""When to look at a run again although nothing was heard of it: pure."""

from __future__ import annotations

from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus
from editr1.runs.kinds import KINDS
from editr1.runs.spec import RunBody

PROGRESS_SECONDS = 5.0
READS_A_SECOND = 20
"""Progress is read from the store at most this often, all runs together."""
PENDING_SECONDS = 5.0
REFUSED_SECONDS = 15.0
QUIET_SECONDS = 300.0
"""A run of which nothing is expected is looked at this often, and asked after: a watch can miss that something went."""


def progress_seconds(runs: int) -> float:
    """How often each of so many runs has its progress read."""
    return max(PROGRESS_SECONDS, runs / READS_A_SECOND)


def next_look(status: RunStatus, spec: RunBody, now: float, progress_s: float = PROGRESS_SECONDS) -> float:
    """Seconds since the epoch of the next look: a backoff's end, a limit, or progress to show."""
    times = [now + QUIET_SECONDS]
    limits = {stage.name: stage for stage in spec.stages}
    for stage in status.stages:
        if stage.over:
            continue
        if stage.not_before is not None and stage.not_before > now:
            times.append(stage.not_before)
        if stage.reason in (Reason.REFUSED, Reason.SETTINGS):
            times.append(now + REFUSED_SECONDS)
        elif stage.state is RunState.RUNNING:
            times.append(now + progress_s)
        elif stage.state is RunState.STARTING:
            times.append(now + max(PENDING_SECONDS, progress_s))
        known = limits[stage.name]
        if stage.pending_since is not None and stage.state in (RunState.STARTING, RunState.RUNNING):
            times.append(max(now + 1, stage.pending_since + known.pending_timeout_seconds + 0.1))
        if (
            known.deadline_seconds is not None
            and not KINDS[known.kind].service
            and stage.attempts
            and stage.held_since is None
            and stage.state is not RunState.SUSPENDED
        ):
            times.append(max(now + 1, stage.attempts[0].started + stage.held_s + known.deadline_seconds + 0.1))
    return min(times)
