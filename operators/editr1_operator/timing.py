"""Compute when to reconcile a run again if no watch reports a change earlier. All functions are pure."""

from __future__ import annotations

from collections.abc import Iterator

from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus
from editr1.runs.kinds import KINDS
from editr1.runs.spec import RunBody, StageSpec

PROGRESS_SECONDS = 5.0
"""Minimum interval in seconds between two reads of a run's progress."""
PROGRESS_READS_PER_SECOND = 20
"""Maximum number of progress reads from the artifact store per second, summed over all runs."""
PENDING_SECONDS = 5.0
"""Seconds between two reconciliations while a job or service is starting."""
REFUSED_SECONDS = 15.0
"""Seconds between two reconciliations while the API server rejects a stage's objects or the settings are invalid."""
LIMIT_MARGIN_SECONDS = 0.1
RESYNC_SECONDS = 300.0
"""Maximum seconds between two reconciliations of a run.

At this time, the run's objects are also listed again, because a watch can miss their deletion.
"""


def progress_interval(runs: int) -> float:
    """Return the interval in seconds between two reads of a run's progress. It grows with the number of ``runs``."""
    return max(PROGRESS_SECONDS, runs / PROGRESS_READS_PER_SECOND)


def next_reconcile(status: RunStatus, spec: RunBody, now: float, progress_s: float = PROGRESS_SECONDS) -> float:
    """Return the time of the next reconciliation of a run in seconds since the epoch.

    It is the earliest time at which a backoff ends, a time limit expires, or the progress must be read again.
    """
    specs = {stage.name: stage for stage in spec.stages}
    times = [now + RESYNC_SECONDS]
    for stage in status.stages:
        if not stage.over:
            times += _backoff_and_polling_times(stage, now, progress_s)
            times += _limit_times(stage, specs[stage.name], now)
    return min(times)


def _backoff_and_polling_times(stage: StageStatus, now: float, progress_s: float) -> Iterator[float]:
    if stage.not_before is not None and stage.not_before > now:
        yield stage.not_before
    if stage.reason in (Reason.REFUSED, Reason.SETTINGS):
        yield now + REFUSED_SECONDS
    elif stage.state is RunState.RUNNING:
        yield now + progress_s
    elif stage.state is RunState.STARTING:
        yield now + max(PENDING_SECONDS, progress_s)


def _limit_times(stage: StageStatus, spec: StageSpec, now: float) -> Iterator[float]:
    """Yield the times at which the pending timeout and the deadline of a stage expire, each at least a second from now."""
    if stage.pending_since is not None and stage.state in (RunState.STARTING, RunState.RUNNING):
        yield max(now + 1, stage.pending_since + spec.pending_timeout_seconds + LIMIT_MARGIN_SECONDS)
    suspended = stage.suspended_since is not None or stage.state is RunState.SUSPENDED
    if spec.deadline_seconds is None or KINDS[spec.kind].service or not stage.attempts or suspended:
        return
    began = stage.attempts[0].started + stage.suspended_seconds
    yield max(now + 1, began + spec.deadline_seconds + LIMIT_MARGIN_SECONDS)
