"""Restarts of the operator: each decision is stable, and simulated runs complete although the operator is killed repeatedly."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from editr1.launch.kubernetes.run_status import RunState, RunStatus, StageStatus
from editr1.launch.kubernetes.views import Condition, ContainerView, JobView, PodView, ReleaseView
from editr1.runs.record import StageResult
from editr1.runs.spec import RunBody, StageSpec
from editr1_operator.actions import (
    Action,
    DeleteJob,
    EnsureService,
    Launch,
    LoadResult,
    ReleaseService,
    Resolve,
    SetSuspended,
)
from editr1_operator.decide import decide
from editr1_operator.observed import ObservedRun, ObservedStage
from tests.unit.operator import test_decide, test_services, test_suspend
from tests.unit.operator.conftest import Case, next_observed, stage_of

CASES = {**test_decide.CASES, **test_services.CASES, **test_suspend.CASES}
KILL_PROBABILITY = 0.15
FAULTS = 4
"""Maximum number of faults per stage, equal to its retries."""
MAX_RECONCILIATIONS = 500
LAST_SUSPENSION = 40
MODEL = "builtin:shapes-verifier"
STAGES = [
    StageSpec(name="data", kind="curate", retries=FAULTS),
    StageSpec(name="other", kind="curate", retries=FAULTS),
    StageSpec(name="sft", kind="sft", inputs={"rows": "stage:data/rows", "model": MODEL}, retries=FAULTS),
    StageSpec(name="rrm", kind="serve", inputs={"model": "stage:sft/model"}),
    StageSpec(name="grpo", kind="grpo", reward="rrm", inputs={"cases": "stage:data/cases"}, retries=FAULTS),
]
JOB_STAGES = [stage.name for stage in STAGES if stage.name != "rrm"]


@dataclass
class Job:
    uid: str
    attempt: int
    phase: str = "Pending"
    code: int | None = None
    suspended: bool = False
    terminating: bool = False
    pods: dict[str, str] = field(default_factory=dict)


@dataclass
class Cluster:
    """A simulated cluster: jobs by stage, results in the store, and the number of injected faults."""

    rng: random.Random
    now: float = 1e9
    status: RunStatus = field(default_factory=RunStatus)
    suspend: bool = False
    queue: str = ""
    jobs: dict[str, Job] = field(default_factory=dict)
    results: set[str] = field(default_factory=set)
    created: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    uids: int = 0

    def new_uid(self) -> str:
        self.uids += 1
        return f"u{self.uids}"

    def apply(self, action: Action) -> None:
        job = self.jobs.get(action.stage)
        if isinstance(action, Launch | EnsureService):
            attempt = action.attempt if isinstance(action, Launch) else 0
            assert action.stage not in self.results, "a stage with a result was started"
            if job is None:
                self.created[action.stage] += 1
                self.jobs[action.stage] = Job(
                    self.new_uid(), attempt, suspended=self.queue != "" and action.stage in JOB_STAGES
                )
            else:
                overlaps = isinstance(action, Launch) and job.terminating
                assert job.attempt == attempt and not overlaps, "an attempt was started while another one existed"
        elif job is None:
            return
        elif isinstance(action, SetSuspended):
            assert not self.queue, "the operator suspended or resumed a queued job"
            job.suspended = action.suspended
        elif isinstance(action, ReleaseService) or (isinstance(action, DeleteJob) and job.uid == action.uid):
            job.terminating = True

    def advance(self) -> None:
        """Advance the time and the state of each job at random."""
        self.now += self.rng.uniform(0.5, 20)
        for name, job in list(self.jobs.items()):
            if self.rng.random() < 0.3:
                continue
            if job.terminating:
                del self.jobs[name]
            elif job.suspended:
                job.phase, job.pods = "Pending", {}
                # Admit only jobs whose suspension was observed: an unobserved preemption looks like a lost node.
                reported = self.status.stage_of(name)
                admitted = self.queue and reported is not None and reported.suspended_since is not None
                job.suspended = not admitted or self.rng.random() < 0.5
            elif job.phase == "Pending":
                job.phase, job.pods = "Running", {f"{name}-{index}": self.new_uid() for index in range(2)}
            elif job.phase == "Running":
                self._advance_running(name, job)

    def _advance_running(self, name: str, job: Job) -> None:
        chance = self.rng.random()
        if name == "rrm":
            if chance < 0.05:
                job.phase = "Pending"
        elif chance < 0.4:
            self.results.add(name)
            job.phase = "Succeeded"
        elif chance < 0.7 and self.faults[name] < FAULTS:
            self.faults[name] += 1
            if chance < 0.55:
                job.phase, job.code = "Failed", self.rng.choice((129, 137, 143, None))
            elif chance < 0.65:
                job.pods[f"{name}-0"] = self.new_uid()
            else:
                del self.jobs[name]
        elif chance > 0.9 and self.queue:
            job.suspended = True

    def observe(self, status: RunStatus, read: set[str]) -> ObservedRun:
        stages = {stage.name: self._of(stage.name, stage.name in read) for stage in STAGES}
        return ObservedRun("lab", RunBody(stages=STAGES, suspend=self.suspend), status, 1, self.now, stages)

    def _of(self, name: str, read: bool) -> ObservedStage:
        result = StageResult(key="k", outputs={"model": "sha256:m"}) if read and name in self.results else None
        job = self.jobs.get(name)
        if job is None:
            return ObservedStage(ReleaseView(name, "lab"), result=result, result_read=read)
        over = job.phase in ("Succeeded", "Failed")
        view = JobView(
            name,
            "lab",
            name,
            "",
            service=name == "rrm",
            suspended=job.suspended,
            suspended_by_run=job.suspended and not self.queue,
            queue=self.queue,
            ready=int(job.phase == "Running"),
            conditions=(Condition(job.phase, "True"),) if over else (),
        )
        container = ContainerView("pytorch", exit_code=job.code)
        pods = tuple(PodView(pod, uid, job.phase, containers=(container,)) for pod, uid in job.pods.items())
        return ObservedStage(
            ReleaseView(name, "lab", view, pods),
            uid=job.uid,
            attempt=job.attempt,
            terminating=job.terminating,
            owned=True,
            result=result,
            result_read=read,
        )


def reconcile(cluster: Cluster, killed: float) -> None:
    """Reconcile once. The operator is killed with probability ``killed`` before each write."""
    status, read = cluster.status, set[str]()
    for _ in range(12):
        plan = decide(cluster.observe(status, read))
        reads = [action.stage for action in plan.actions if isinstance(action, Resolve | LoadResult)]
        if not reads:
            break
        read.update(reads)
        keyed = [item.model_copy(update={"key": "k"}) if item.name in reads else item for item in plan.status.stages]
        status = plan.status.model_copy(update={"stages": keyed})
    else:
        raise AssertionError("no decision")
    if cluster.rng.random() < killed:
        return
    cluster.status = RunStatus.model_validate(plan.status.as_json())
    for action in plan.actions:
        if cluster.rng.random() < killed:
            return
        cluster.apply(action)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_decision_is_the_same_after_a_restart(case: Case) -> None:
    plan = decide(case.observed)
    again = decide(next_observed(case.observed, plan))
    assert again.status == plan.status
    assert set(plan.actions) <= set(again.actions)
    # A failure is written to the status before the failed job is deleted.
    assert all(isinstance(action, DeleteJob) for action in again.actions if action not in plan.actions)
    assert decide(next_observed(case.observed, again)) == again


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_status_records_actions_before_they_are_applied(case: Case) -> None:
    plan = decide(case.observed)
    for action in plan.actions:
        stage = stage_of(plan, action.stage)
        if isinstance(action, Launch):
            assert len(stage.attempts) == action.attempt and stage.attempts[-1].ended is None
        if isinstance(action, DeleteJob):
            earlier = case.observed.stages[action.stage].attempt < len(stage.attempts)
            assert earlier or stage.state is RunState.SUSPENDED or stage.attempts[-1].ended is not None


def assert_failures_are_counted_once(cluster: Cluster) -> None:
    for name in JOB_STAGES:
        stage = cluster.status.stage_of(name) or StageStatus(name=name)
        assert stage.failures <= cluster.faults[name], f"{name}: a failure was counted twice"
        assert len(stage.attempts) <= 1 + stage.failures, f"{name}: more attempts than failures explain"
        assert stage.state is not RunState.FAILED, stage.message


@pytest.mark.parametrize("seed", range(200))
def test_run_completes_although_its_operator_is_killed_repeatedly(seed: int) -> None:
    cluster = Cluster(random.Random(seed), queue="research" if seed % 2 else "")
    for turn in range(MAX_RECONCILIATIONS):
        toggled = turn < LAST_SUSPENSION and cluster.rng.random() < 0.1
        cluster.suspend = turn < LAST_SUSPENSION and cluster.suspend != toggled
        reconcile(cluster, KILL_PROBABILITY)
        assert_failures_are_counted_once(cluster)
        if cluster.status.state is RunState.DONE:
            break
        cluster.advance()
    assert cluster.status.state is RunState.DONE, cluster.status.message
    assert cluster.results == set(JOB_STAGES) and all(cluster.created[stage.name] for stage in STAGES)
    for _ in range(20):
        reconcile(cluster, 0)
        cluster.advance()
    assert cluster.status.state is RunState.DONE
    assert all(job.phase == "Succeeded" for job in cluster.jobs.values()), "a job is still running"
