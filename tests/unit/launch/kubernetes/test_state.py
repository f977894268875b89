"""Phase and explanation of a release, derived from its objects."""

from dataclasses import replace

import pytest

from editr1.launch.kubernetes.parse import job_view, pod_view
from editr1.launch.kubernetes.state import Phase, StageState, pods_left, state_of
from editr1.launch.kubernetes.views import Condition, ContainerView, EventView, JobView, PodView, ReleaseView

JOB = JobView("my-sft", "my", "sft", "sft")
SERVICE = JobView("rrm", "rrm", "serve", "serve", service=True, wanted=2, ready=0)
POD = PodView("my-sft-master-0", containers=(ContainerView("pytorch", image="editr1/sft:9"),))
READY = (Condition("Ready", "True"),)


def release(job: JobView | None = JOB, *pods: PodView, events: tuple[EventView, ...] = ()) -> ReleaseView:
    return ReleaseView("my-sft", "lab", job, pods, events)


def waiting(reason: str, message: str = "", restarts: int = 0) -> PodView:
    container = replace(POD.containers[0], waiting=reason, message=message, restarts=restarts)
    return replace(POD, containers=(container,))


def unscheduled(message: str) -> PodView:
    return replace(POD, conditions=(Condition("PodScheduled", "False", "Unschedulable", message),))


@pytest.mark.parametrize(
    ("pod", "explanation"),
    [
        (unscheduled("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."), "not enough nvidia.com/gpu is free"),
        (unscheduled("0/3 nodes are available: 3 node(s) had untolerated taint {x: y}."), "untolerated taint"),
        (waiting("ImagePullBackOff", "not found"), "cannot pull its image editr1/sft:9 (ImagePullBackOff: not found)"),
        (waiting("ErrImageNeverPull"), "cannot pull its image editr1/sft:9"),
        (
            waiting("CreateContainerConfigError", 'secret "editr1-s3" not found'),
            "the Secret 'editr1-s3' does not exist; create it, or set store.secretName",
        ),
        (
            waiting("CreateContainerConfigError", "couldn't find key access-key in Secret lab/editr1-s3"),
            "has no key 'access-key'",
        ),
        (waiting("CrashLoopBackOff", restarts=4), "crashes repeatedly (4 restarts)"),
        (waiting("CreateContainerError", "no such file"), "cannot start: no such file"),
    ],
)
def test_pod_that_does_not_start_is_explained(pod: PodView, explanation: str) -> None:
    state = state_of(release(JOB, pod))
    assert state.phase is Phase.PENDING
    assert explanation in state.reason


@pytest.mark.parametrize(
    ("message", "explanation"),
    [
        (
            'pods "x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=2, limited: pods=2',
            "the namespace's quota is exhausted: team, requested: pods=1",
        ),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot', "Pod Security rejects"),
        ("serviceaccount not found", "the pods cannot be created: serviceaccount not found"),
    ],
)
def test_pods_that_cannot_be_created_are_explained(message: str, explanation: str) -> None:
    event = EventView("my-sft", "FailedCreatePod", message, warning=True)
    assert explanation in state_of(release(JOB, events=(event,))).reason


def test_missing_volume_is_reported_while_the_pod_waits() -> None:
    event = EventView(POD.name, "FailedMount", 'configmap "my-ca" not found', warning=True)
    assert "waits for a volume: configmap" in state_of(release(JOB, POD, events=(event,))).reason


def test_job_phase_follows_its_conditions_and_pods() -> None:
    running = replace(POD, phase="Running", conditions=READY)
    assert state_of(release(None)).phase is Phase.MISSING
    assert state_of(release()).phase is Phase.PENDING
    assert state_of(release(JOB, running)) == StageState(Phase.RUNNING)
    assert state_of(release(replace(JOB, suspended=True), running)).phase is Phase.SUSPENDED
    queued = state_of(release(replace(JOB, suspended=True, queue="research")))
    assert queued.reason == "waiting for admission by queue research"
    done = replace(JOB, conditions=(Condition("Succeeded", "True"),), suspended=True)
    assert state_of(release(done)) == StageState(Phase.SUCCEEDED, exit_code=0)


def test_failed_job_has_the_exit_code_of_its_failed_pod() -> None:
    job = replace(JOB, conditions=(Condition("Running", "False"), Condition("Failed", "True", "", "job failed")))
    killed = replace(POD, phase="Failed", containers=(ContainerView("pytorch", exit_code=137, terminated="OOMKilled"),))
    assert state_of(release(job, killed)) == StageState(
        Phase.FAILED, "pod my-sft-master-0 exited with code 137 (OOMKilled)", 137
    )
    assert state_of(release(job)) == StageState(Phase.FAILED, "job failed", None)


def test_service_phase_follows_replicas_and_probe_events() -> None:
    pod = replace(POD, name="rrm-1", phase="Running", containers=(ContainerView("reward"),))
    assert state_of(release(SERVICE, pod)).reason == "loading the weights"
    unhealthy = EventView("rrm-1", "Unhealthy", "Readiness probe failed: 503", warning=True)
    assert "Readiness probe failed" in state_of(release(SERVICE, pod, events=(unhealthy,))).reason
    assert state_of(release(replace(SERVICE, ready=1), pod)).phase is Phase.READY
    scaled_down = state_of(release(replace(SERVICE, wanted=0)))
    assert scaled_down.phase is Phase.READY and "until a GRPO pod starts" in scaled_down.reason


def test_problems_of_terminating_pods_are_ignored() -> None:
    terminating = replace(waiting("ImagePullBackOff"), terminating=True)
    assert state_of(release(JOB, terminating)).reason == "waiting for its pods to start"


def test_api_json_is_converted_to_views() -> None:
    job = job_view(
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {
                "name": "j",
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"editr1.dev/run": "r", "editr1.dev/stage": "s", "kueue.x-k8s.io/queue-name": "q"},
            },
            "spec": {
                "runPolicy": {"suspend": True},
                "pytorchReplicaSpecs": {"Worker": {"replicas": 3, "template": {"spec": {"containers": []}}}},
            },
            "status": {
                "replicaStatuses": {"Worker": {"active": 2}},
                "conditions": [{"type": "Running", "status": "True", "reason": "Up"}],
            },
        }
    )
    assert (job.run, job.stage, job.queue, job.suspended, job.wanted, job.ready) == ("r", "s", "q", True, 3, 2)
    assert job.created == 1767323045
    assert job.true_condition("Running") is not None and job.true_condition("Failed") is None
    pod = pod_view(
        {
            "metadata": {
                "name": "p",
                "uid": "u",
                "deletionTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"training.kubeflow.org/replica-index": "2"},
            },
            "spec": {"nodeName": "n"},
            "status": {
                "phase": "Running",
                "containerStatuses": [
                    {"name": "pytorch", "restartCount": 1, "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}
                ],
            },
        }
    )
    assert (pod.terminating, pod.index, pod.node) == (True, 2, "n")
    assert pod.main == ContainerView("pytorch", restarts=1, exit_code=3, terminated="Error")


def kept(code: int | None, *, name: str = "my-sft-master-0", init: bool = False) -> PodView:
    """Return a running pod with a proxy that runs, whose stage ended with ``code`` (None: it runs)."""
    stage = ContainerView("pytorch", exit_code=code, running=code is None)
    return replace(POD, name=name, phase="Running", containers=(stage, ContainerView("proxy", running=True, init=init)))


@pytest.mark.parametrize(("code", "phase"), [(0, Phase.SUCCEEDED), (2, Phase.FAILED), (143, Phase.FAILED)])
def test_exit_of_the_stage_counts_although_a_sidecar_keeps_the_pod(code: int, phase: Phase) -> None:
    state = state_of(release(JOB, kept(code)))
    assert (state.phase, state.exit_code) == (phase, code)
    assert f"ended with exit code {code}" in state.reason and "container proxy" in state.reason
    assert not pods_left([kept(code)], 0.0)


def test_job_with_a_sidecar_runs_until_every_process_has_ended_or_one_has_failed() -> None:
    job = replace(JOB, wanted=2)
    first, second = kept(0), kept(None, name="my-sft-worker-1")
    assert state_of(release(job, first, second)).phase is Phase.RUNNING
    assert state_of(release(job, first)).phase is Phase.RUNNING
    assert state_of(release(job, first, kept(0, name="my-sft-worker-1"))).phase is Phase.SUCCEEDED
    failed = state_of(release(job, kept(143), kept(2, name="my-sft-worker-1")))
    assert (failed.phase, failed.exit_code) == (Phase.FAILED, 2), "a permanent code takes precedence"


def test_pod_that_kubernetes_will_end_is_still_running() -> None:
    assert state_of(release(JOB, kept(2, init=True))).phase is Phase.RUNNING
    alone = replace(POD, phase="Running", containers=(ContainerView("pytorch", exit_code=2),))
    assert state_of(release(JOB, alone)).phase is Phase.RUNNING


def test_sidecar_that_runs_is_found_in_the_json_of_a_pod() -> None:
    running = {"state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}}
    ended = {"name": "pytorch", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}
    status = {
        "phase": "Running",
        "initContainerStatuses": [{"name": "native", **running}],
        "containerStatuses": [ended, {"name": "mesh-proxy", **running}],
    }
    pod = pod_view({"metadata": {"name": "p"}, "spec": {}, "status": status})
    assert pod.kept_by == ["mesh-proxy"], "a native sidecar ends with the pod"


@pytest.mark.parametrize(("phase", "waiting"), [("Running", "CrashLoopBackOff"), ("Pending", "ImagePullBackOff")])
def test_exit_of_the_stage_counts_although_its_sidecar_cannot_start(phase: str, waiting: str) -> None:
    containers = (ContainerView("pytorch", exit_code=2), ContainerView("proxy", waiting=waiting))
    state = state_of(release(JOB, replace(POD, phase=phase, containers=containers)))
    assert (state.phase, state.exit_code) == (Phase.FAILED, 2)
