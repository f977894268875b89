"""From what the cluster says to where a stage stands, and why: pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from editr1.errors import worth_a_retry
from editr1.launch.kubernetes.views import EventView, PodView, ReleaseView


class Phase(StrEnum):
    """Where a release stands."""

    MISSING = "missing"
    SUSPENDED = "suspended"
    PENDING = "pending"
    RUNNING = "running"
    READY = "ready"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Trouble(StrEnum):
    """What keeps a pod from running."""

    NO_NODE = "no node"
    NO_IMAGE = "no image"
    NO_QUOTA = "no quota"
    REFUSED = "refused"
    CANNOT_START = "cannot start"
    NOT_READY = "not ready"


@dataclass(frozen=True)
class StageState:
    """Where a stage stands on the cluster. ``reason`` is one sentence, empty where all is well."""

    phase: Phase
    reason: str = ""
    exit_code: int | None = None
    restarts: int = 0
    trouble: Trouble | None = None
    """What ``reason`` speaks of, where it speaks of trouble with a pod."""


@dataclass(frozen=True)
class Blocked:
    """A trouble, and the sentence that says it."""

    trouble: Trouble
    sentence: str


STUCK_SECONDS = 60.0
"""A pod that is there so long after it should have gone does nothing any more."""
_IMAGE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
_ENDED = "Succeeded", "Failed"


def state_of(release: ReleaseView) -> StageState:
    """Phase, exit code and reason of a release."""
    job = release.job
    if job is None:
        return StageState(Phase.MISSING, f"no job or service of release {release.name} in {release.namespace}")
    restarts = sum(pod.main.restarts for pod in release.pods if pod.main)
    if job.is_true("Succeeded"):
        return StageState(Phase.SUCCEEDED, exit_code=0, restarts=restarts)
    if failed := job.is_true("Failed"):
        code, why = _exit(release)
        return StageState(Phase.FAILED, why or failed.message, code, restarts)
    if job.suspended:
        why = "held by queue " + job.queue if job.queue else "suspended; editr1 resume lets it go"
        return StageState(Phase.SUSPENDED, why, restarts=restarts)
    blocked = blocked_by(release)
    why, trouble = (blocked.sentence, blocked.trouble) if blocked else ("", None)
    if job.service:
        if job.wanted == 0:
            return StageState(Phase.READY, "scaled to no replica until a GRPO pod starts", restarts=restarts)
        if job.ready > 0:
            return StageState(Phase.READY, why, restarts=restarts, trouble=trouble)
        return StageState(Phase.PENDING, why or "loading the weights", restarts=restarts, trouble=trouble)
    if any(pod.phase in ("Running", *_ENDED) for pod in release.pods):
        return StageState(Phase.RUNNING, why, restarts=restarts, trouble=trouble)
    return StageState(Phase.PENDING, why or "waiting for its pods", restarts=restarts, trouble=trouble)


def pods_left(pods: Iterable[PodView], now: float) -> bool:
    """Whether a pod of a job that succeeded may yet do something.

    A job of several pods is done with the first that ends; the one with rank 0 commits, which may take longer. A pod on
    a node that died stays "Running" long after its time and counts no more.
    """
    return any(pod.phase == "Running" and not (pod.leaving and now > pod.gone_by + STUCK_SECONDS) for pod in pods)


def blocked_by(release: ReleaseView) -> Blocked | None:
    """What keeps a pod from running; None when nothing does."""
    for pod in release.pods:
        if pod.phase in _ENDED or pod.leaving:
            continue
        found = _pod_trouble(pod, release.events)
        if found:
            return found
    if release.job is not None and not release.pods:
        refused = release.job.is_true("ReplicaFailure")
        events = (EventView(release.name, "FailedCreate", refused.message, warning=True),) if refused else ()
        return _creation_trouble((*release.events, *events))
    return None


def _pod_trouble(pod: PodView, events: tuple[EventView, ...]) -> Blocked | None:
    for condition in pod.conditions:
        if condition.type == "PodScheduled" and condition.status == "False":
            return Blocked(Trouble.NO_NODE, f"pod {pod.name} finds no node: {_scheduling(condition.message)}")
    for container in pod.containers:
        if container.waiting in _IMAGE:
            detail = f": {container.message}" if container.message else ""
            why = f"pod {pod.name} cannot get its image {container.image} ({container.waiting}{detail})"
            return Blocked(Trouble.NO_IMAGE, why)
        if container.waiting == "CreateContainerConfigError":
            return Blocked(Trouble.CANNOT_START, f"pod {pod.name} cannot start: {_config_error(container.message)}")
        if container.waiting == "CrashLoopBackOff":
            why = f"pod {pod.name} starts and ends again ({container.restarts} restarts); see editr1 logs"
            return Blocked(Trouble.CANNOT_START, why)
        if container.waiting in ("CreateContainerError", "RunContainerError"):
            why = f"pod {pod.name} cannot start: {container.message or container.waiting}"
            return Blocked(Trouble.CANNOT_START, why)
    if pod.phase == "Pending":
        for event in reversed(events):
            mount = event.reason in ("FailedMount", "FailedAttachVolume") and "failed to sync" not in event.message
            if event.object == pod.name and event.warning and mount:
                return Blocked(Trouble.CANNOT_START, f"pod {pod.name} waits for a volume: {event.message}")
    if pod.phase == "Running" and not pod.ready:
        for event in reversed(events):
            # A startup probe fails until the weights are loaded; that is no news.
            if event.object == pod.name and event.reason == "Unhealthy" and not event.message.startswith("Startup"):
                return Blocked(Trouble.NOT_READY, f"pod {pod.name} is not ready: {event.message}")
    return None


def _creation_trouble(events: tuple[EventView, ...]) -> Blocked | None:
    for event in reversed(events):
        if event.warning and event.reason in ("FailedCreate", "FailedCreatePod", "ReplicaFailure"):
            if "exceeded quota" in event.message:
                return Blocked(Trouble.NO_QUOTA, f"the namespace's quota is full: {_quota(event.message)}")
            if "violates PodSecurity" in event.message:
                return Blocked(Trouble.REFUSED, f"the namespace's Pod Security refuses the pod: {event.message}")
            return Blocked(Trouble.REFUSED, f"pods cannot be made: {event.message}")
    return None


def _scheduling(message: str) -> str:
    found = re.findall(r"Insufficient ([\w./-]*\w)", message)
    if found:
        names = ", ".join(dict.fromkeys(found))
        return f"not enough {names} is free ({message})"
    return message


def _config_error(message: str) -> str:
    secret = re.search(r'secret "([^"]+)" not found', message)
    if secret:
        return f"the Secret {secret[1]!r} does not exist; make it, or set store.secretName"
    key = re.search(r"couldn't find key (\S+) in Secret (\S+)", message)
    if key:
        return f"the Secret {key[2]} has no key {key[1]!r}; set store.accessKey and store.secretKey"
    return message


def _quota(message: str) -> str:
    return message.split("exceeded quota:", 1)[1].strip()


def _exit(release: ReleaseView) -> tuple[int | None, str]:
    """Exit code of the pod that failed, and what Kubernetes says of it.

    A permanent code comes first: the ranks beside the one that failed end with a code worth a retry, for want of a peer.
    """
    failed = [pod for pod in release.pods if pod.phase == "Failed"]
    told = [pod for pod in failed if pod.main is not None and pod.main.exit_code is not None]
    told.sort(key=lambda pod: worth_a_retry(pod.main.exit_code or 0) if pod.main else True)
    for pod in told:
        assert pod.main is not None
        why = f"pod {pod.name} ended with {pod.main.exit_code}"
        if pod.main.ended and pod.main.ended != "Error":
            why += f" ({pod.main.ended})"
        return pod.main.exit_code, why
    for pod in failed:
        return None, f"pod {pod.name} failed: {pod.reason or pod.message}"
    return None, ""
