"""Checks of the observed state of a stage's job or service. All functions are pure."""

from __future__ import annotations

from editr1.launch.kubernetes.run_status import Reason
from editr1.launch.kubernetes.state import Phase, StageState, Trouble, is_stuck, state_of
from editr1.launch.kubernetes.views import PodView
from editr1_operator.observed import ObservedStage

TROUBLE_REASONS = {
    Trouble.NO_NODE: Reason.NO_NODE,
    Trouble.NO_IMAGE: Reason.NO_IMAGE,
    Trouble.NO_QUOTA: Reason.NO_QUOTA,
    Trouble.REFUSED: Reason.PODS_REFUSED,
    Trouble.CANNOT_START: Reason.CANNOT_START,
    Trouble.NOT_READY: Reason.PODS_STARTING,
}
"""Mapping from kinds of problems with a stage's pods to the reason in the status of the stage."""
_ENDED = (Phase.SUCCEEDED, Phase.FAILED)


def has_ended(seen: ObservedStage) -> bool:
    """Return True if the job of the stage has succeeded or failed."""
    return state_of(seen.release).phase in _ENDED


def has_succeeded(seen: ObservedStage) -> bool:
    """Return True if the job of the stage has succeeded."""
    return state_of(seen.release).phase is Phase.SUCCEEDED


def is_active(seen: ObservedStage) -> bool:
    """Return True if the job of the stage exists and has neither succeeded nor failed."""
    return state_of(seen.release).phase not in (*_ENDED, Phase.MISSING)


def waiting_reason(state: StageState) -> Reason:
    """Return the reason why a job or service is not running yet, for the status of its stage."""
    return TROUBLE_REASONS[state.trouble] if state.trouble else Reason.PODS_STARTING


def failure_message(state: StageState, seen: ObservedStage) -> str:
    """Return why a job failed: the reason that Kubernetes reports, followed by the error that the stage wrote, if any."""
    return f"{state.reason}: {seen.last_error}" if seen.last_error else state.reason


def stuck_pods(seen: ObservedStage, now: float) -> list[PodView]:
    """Return the stage's pods on lost nodes. Until they are deleted, no new pods can replace them."""
    return [pod for pod in seen.release.pods if is_stuck(pod, now)]
