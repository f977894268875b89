"""Derive the state of a stage on a cluster from the job, pods and events of its release. All functions are pure.

The state consists of the phase of the stage, and the reason why the stage is not running or not ready.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from editr1.errors import ExitCode, is_retryable
from editr1.launch.kubernetes.views import ContainerView, EventView, PodView, ReleaseView


class Phase(StrEnum):
    """Phase of a job or service. Only a service can become ready; only a job can succeed, fail or be suspended."""

    MISSING = "missing"
    SUSPENDED = "suspended"
    PENDING = "pending"
    RUNNING = "running"
    READY = "ready"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Trouble(StrEnum):
    """Kind of problem that prevents a pod from running or becoming ready."""

    NO_NODE = "no node"
    NO_IMAGE = "no image"
    NO_QUOTA = "no quota"
    REFUSED = "refused"
    CANNOT_START = "cannot start"
    NOT_READY = "not ready"


@dataclass(frozen=True)
class StageState:
    """State of a stage on a cluster."""

    phase: Phase
    reason: str = ""
    """Sentence that explains the phase; empty if there is nothing to explain."""
    exit_code: int | None = None
    """Exit code of a job that succeeded or failed; None if the job has not ended or if its exit code is unknown."""
    restarts: int = 0
    """Number of restarts of the stage's containers in all pods."""
    trouble: Trouble | None = None
    """Kind of the problem that ``reason`` describes; None if it does not describe a problem of a pod."""


@dataclass(frozen=True)
class PodProblem:
    """A problem of a pod, with a sentence that describes it."""

    trouble: Trouble
    sentence: str


STUCK_SECONDS = 60.0
"""Time in seconds after the end of a pod's grace period.

If the pod still exists at that time, its node is assumed to be lost.
"""
_IMAGE_ERRORS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
_CREATION_ERRORS = ("FailedCreate", "FailedCreatePod", "ReplicaFailure")
_MOUNT_ERRORS = ("FailedMount", "FailedAttachVolume")
_ENDED = ("Succeeded", "Failed")


def state_of(release: ReleaseView) -> StageState:
    """Return the state of the stage that a release runs."""
    job = release.job
    if job is None:
        return StageState(
            Phase.MISSING, f"release {release.name} has no job or service in namespace {release.namespace}"
        )
    restarts = sum(pod.main.restarts for pod in release.pods if pod.main)
    if job.true_condition("Succeeded"):
        return StageState(Phase.SUCCEEDED, exit_code=ExitCode.DONE, restarts=restarts)
    if failed := job.true_condition("Failed"):
        code, reason = _failure(release)
        return StageState(Phase.FAILED, reason or failed.message, code, restarts)
    if job.suspended:
        queued = f"waiting for admission by queue {job.queue}"
        held = (
            "suspended; use editr1 resume to continue, unless a queue controller or an administrator suspended the job"
        )
        reason = queued if job.queue else held
        return StageState(Phase.SUSPENDED, reason, restarts=restarts)
    if not job.service and (kept := _kept_state(release, restarts)):
        return kept
    problem = find_problem(release)
    reason, trouble = (problem.sentence, problem.trouble) if problem else ("", None)
    if job.service:
        if job.wanted == 0:
            return StageState(Phase.READY, "scaled to zero replicas until a GRPO pod starts", restarts=restarts)
        if job.ready > 0:
            return StageState(Phase.READY, reason, restarts=restarts, trouble=trouble)
        return StageState(Phase.PENDING, reason or "loading the weights", restarts=restarts, trouble=trouble)
    if any(pod.phase in ("Running", *_ENDED) for pod in release.pods):
        return StageState(Phase.RUNNING, reason, restarts=restarts, trouble=trouble)
    return StageState(Phase.PENDING, reason or "waiting for its pods to start", restarts=restarts, trouble=trouble)


def _kept_state(release: ReleaseView, restarts: int) -> StageState | None:
    """Return the state of a job whose pods are only kept by other containers, or None if it is not such a job.

    If the process of one pod has failed, the job has failed. It has succeeded once all processes have exited with 0.
    """
    kept = {pod.name: pod.kept_by for pod in release.pods if pod.kept_by}
    ended = [(pod, pod.main.exit_code) for pod in release.pods if pod.main and pod.main.exit_code is not None]
    failed = sorted((item for item in ended if item[1]), key=lambda item: is_retryable(item[1] or 0))
    if not kept or (
        not failed and (len(ended) < len(release.pods) or len(ended) < (release.job.wanted if release.job else 0))
    ):
        return None
    pod, code = failed[0] if failed else ended[0]
    names = sorted({name for names in kept.values() for name in names})
    reason = (
        f"the stage in pod {pod.name} ended with exit code {code}, but the pod is kept by a sidecar, its container {', '.join(names)}; "
        "keep sidecars out with the values podLabels or podAnnotations"
    )
    return StageState(Phase.FAILED if failed else Phase.SUCCEEDED, reason, code, restarts)


def pods_left(pods: Iterable[PodView], now: float) -> bool:
    """Return True if a pod of a succeeded job is still running.

    Kubernetes reports a job with several pods as succeeded when its first pod has succeeded. The pod of rank 0, which commits
    the result, may take longer. Pods on lost nodes are ignored, although their phase stays Running.
    """
    return any(pod.phase == "Running" and not pod.kept_by and not is_stuck(pod, now) for pod in pods)


def is_stuck(pod: PodView, now: float) -> bool:
    """Return True if the pod still exists :data:`STUCK_SECONDS` after its grace period, so that its node is assumed to be lost."""
    return pod.terminating and now > pod.deletion_deadline + STUCK_SECONDS


def find_problem(release: ReleaseView) -> PodProblem | None:
    """Return the first problem that prevents a pod of the release from running or being ready; None if there is no problem."""
    for pod in release.pods:
        if pod.phase in _ENDED or pod.terminating:
            continue
        if problem := _pod_problem(pod, release.events):
            return problem
    if release.job is not None and not release.pods:
        refused = release.job.true_condition("ReplicaFailure")
        events = (EventView(release.name, "FailedCreate", refused.message, warning=True),) if refused else ()
        return _creation_problem((*release.events, *events))
    return None


def _pod_problem(pod: PodView, events: tuple[EventView, ...]) -> PodProblem | None:
    for condition in pod.conditions:
        if condition.type == "PodScheduled" and condition.status == "False":
            reason = _scheduling_reason(condition.message)
            return PodProblem(Trouble.NO_NODE, f"pod {pod.name} cannot be scheduled: {reason}")
    for container in pod.containers:
        if problem := _container_problem(pod, container):
            return problem
    own_events = [event for event in reversed(events) if event.object == pod.name]
    if pod.phase == "Pending":
        return _volume_problem(pod, own_events)
    if pod.phase == "Running" and not pod.ready:
        return _readiness_problem(pod, own_events)
    return None


def _container_problem(pod: PodView, container: ContainerView) -> PodProblem | None:
    detail = container.message or container.waiting
    if container.waiting in _IMAGE_ERRORS:
        cause = f"{container.waiting}: {container.message}" if container.message else container.waiting
        return PodProblem(Trouble.NO_IMAGE, f"pod {pod.name} cannot pull its image {container.image} ({cause})")
    if container.waiting == "CreateContainerConfigError":
        return PodProblem(Trouble.CANNOT_START, f"pod {pod.name} cannot start: {_config_error(container.message)}")
    if container.waiting == "CrashLoopBackOff":
        sentence = f"pod {pod.name} crashes repeatedly ({container.restarts} restarts); see editr1 logs"
        return PodProblem(Trouble.CANNOT_START, sentence)
    if container.waiting in ("CreateContainerError", "RunContainerError"):
        return PodProblem(Trouble.CANNOT_START, f"pod {pod.name} cannot start: {detail}")
    return None


def _volume_problem(pod: PodView, events: Iterable[EventView]) -> PodProblem | None:
    for event in events:
        if event.warning and event.reason in _MOUNT_ERRORS and "failed to sync" not in event.message:
            return PodProblem(Trouble.CANNOT_START, f"pod {pod.name} waits for a volume: {event.message}")
    return None


def _readiness_problem(pod: PodView, events: Iterable[EventView]) -> PodProblem | None:
    for event in events:
        # The startup probe is expected to fail until the weights are loaded.
        if event.reason == "Unhealthy" and not event.message.startswith("Startup"):
            return PodProblem(Trouble.NOT_READY, f"pod {pod.name} is not ready: {event.message}")
    return None


def _creation_problem(events: tuple[EventView, ...]) -> PodProblem | None:
    for event in reversed(events):
        if event.warning and event.reason in _CREATION_ERRORS:
            if "exceeded quota" in event.message:
                return PodProblem(Trouble.NO_QUOTA, f"the namespace's quota is exhausted: {_quota(event.message)}")
            if "violates PodSecurity" in event.message:
                return PodProblem(Trouble.REFUSED, f"the namespace's Pod Security rejects the pod: {event.message}")
            return PodProblem(Trouble.REFUSED, f"the pods cannot be created: {event.message}")
    return None


def _scheduling_reason(message: str) -> str:
    missing = re.findall(r"Insufficient ([\w./-]*\w)", message)
    if missing:
        return f"not enough {', '.join(dict.fromkeys(missing))} is free ({message})"
    return message


def _config_error(message: str) -> str:
    secret = re.search(r'secret "([^"]+)" not found', message)
    if secret:
        return f"the Secret {secret[1]!r} does not exist; create it, or set store.secretName to an existing Secret"
    key = re.search(r"couldn't find key (\S+) in Secret (\S+)", message)
    if key:
        return f"the Secret {key[2]} has no key {key[1]!r}; set store.accessKey and store.secretKey to the names of its keys"
    return message


def _quota(message: str) -> str:
    return message.split("exceeded quota:", 1)[1].strip()


def _failure(release: ReleaseView) -> tuple[int | None, str]:
    """Return the exit code of a failed job, and a sentence that describes the failure.

    If several pods failed, a permanent exit code takes precedence over a retryable one. When one rank fails, the other ranks lose
    the connection to it and exit with a retryable code.
    """
    failed = [pod for pod in release.pods if pod.phase == "Failed"]
    exited = [(pod, pod.main) for pod in failed if pod.main is not None and pod.main.exit_code is not None]
    for pod, main in sorted(exited, key=lambda item: is_retryable(item[1].exit_code or 0)):
        detail = f" ({main.terminated})" if main.terminated and main.terminated != "Error" else ""
        return main.exit_code, f"pod {pod.name} exited with code {main.exit_code}{detail}"
    for pod in failed:
        return None, f"pod {pod.name} failed: {pod.reason or pod.message}"
    return None, ""
