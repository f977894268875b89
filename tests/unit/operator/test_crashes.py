"""Nothing is lost when the operator is killed: each case decided again, and whole runs on a cluster in memory."""

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
from tests.unit.operator.conftest import Case, next_facts, stage_of

CASES = {**test_decide.CASES, **test_services.CASES, **test_suspend.CASES}
KILLED = 0.15
FAULTS = 4
"""Most that goes wrong with one stage, so that its retries last."""
MOST_LOOKS = 500
SUSPENDS_UNTIL = 40
MODEL = "builtin:shapes-verifier"
STAGES = [
    StageSpec(name="data", kind="curate", retries=FAULTS),
    StageSpec(name="other", kind="curate", retries=FAULTS),
    StageSpec(name="sft", kind="sft", inputs={"rows": "stage:data/rows", "model": MODEL}, retries=FAULTS),
    StageSpec(name="rrm", kind="serve", inputs={"model": "stage:sft/model"}),
    StageSpec(name="grpo", kind="grpo", reward="rrm", inputs={"cases": "stage:data/cases"}, retries=FAULTS),
]
WORK = [stage.name for stage in STAGES if stage.name != "rrm"]


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
    """Jobs and the service by stage, results in the store, and what went wrong."""

    dice: random.Random
    now: float = 1e9
    status: RunStatus = field(default_factory=RunStatus)
    suspend: bool = False
    queue: str = ""
    jobs: dict[str, Job] = field(default_factory=dict)
    results: set[str] = field(default_factory=set)
    made: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    uids: int = 0

    def identity(self) -> str:
        self.uids += 1
        return f"u{self.uids}"

    def carry_out(self, action: Action) -> None:
        job = self.jobs.get(action.stage)
        if isinstance(action, Launch | EnsureService):
            attempt = action.attempt if isinstance(action, Launch) else 0
            assert action.stage not in self.results, "what stands is not started"
            if job is None:
                self.made[action.stage] += 1
                self.jobs[action.stage] = Job(
                    self.identity(), attempt, suspended=self.queue != "" and action.stage in WORK
                )
            else:
                beside = isinstance(action, Launch) and job.terminating
                assert job.attempt == attempt and not beside, "no attempt starts beside another"
        elif job is None:
            return
        elif isinstance(action, SetSuspended):
            assert not self.queue, "a job in a queue is the queue's to hold and to let go"
            job.suspended = action.suspended
        elif isinstance(action, ReleaseService) or (isinstance(action, DeleteJob) and job.uid == action.uid):
            job.terminating = True

    def goes_on(self) -> None:
        """Some time passes, and something may happen to each job."""
        self.now += self.dice.uniform(0.5, 20)
        for name, job in list(self.jobs.items()):
            if self.dice.random() < 0.3:
                continue
            if job.terminating:
                del self.jobs[name]
            elif job.suspended:
                job.phase, job.pods = "Pending", {}
                # What a queue takes and gives back while the operator is away looks like nodes that were lost.
                told = self.status.stage_of(name)
                let_go = self.queue and told is not None and told.held_since is not None
                job.suspended = not let_go or self.dice.random() < 0.5
            elif job.phase == "Pending":
                job.phase, job.pods = "Running", {f"{name}-{index}": self.identity() for index in range(2)}
            elif job.phase == "Running":
                self._fares(name, job)

    def _fares(self, name: str, job: Job) -> None:
        fate = self.dice.random()
        if name == "rrm":
            if fate < 0.05:
                job.phase = "Pending"
        elif fate < 0.4:
            self.results.add(name)
            job.phase = "Succeeded"
        elif fate < 0.7 and self.faults[name] < FAULTS:
            self.faults[name] += 1
            if fate < 0.55:
                job.phase, job.code = "Failed", self.dice.choice((129, 137, 143, None))
            elif fate < 0.65:
                job.pods[f"{name}-0"] = self.identity()
            else:
                del self.jobs[name]
        elif fate > 0.9 and self.queue:
            job.suspended = True

    def facts(self, status: RunStatus, read: set[str]) -> ObservedRun:
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


def look(cluster: Cluster, killed: float) -> None:
    """One look of the operator, which may be killed before the status is written or before any action."""
    status, read = cluster.status, set[str]()
    for _ in range(12):
        plan = decide(cluster.facts(status, read))
        inward = [action.stage for action in plan.actions if isinstance(action, Resolve | LoadResult)]
        if not inward:
            break
        read.update(inward)
        keyed = [item.model_copy(update={"key": "k"}) if item.name in inward else item for item in plan.status.stages]
        status = plan.status.model_copy(update={"stages": keyed})
    else:
        raise AssertionError("no decision")
    if cluster.dice.random() < killed:
        return
    cluster.status = RunStatus.model_validate(plan.status.as_json())
    for action in plan.actions:
        if cluster.dice.random() < killed:
            return
        cluster.carry_out(action)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_operator_killed_at_any_moment_decides_the_same_again(case: Case) -> None:
    plan = decide(case.facts)
    again = decide(next_facts(case.facts, plan))
    assert again.status == plan.status
    assert set(plan.actions) <= set(again.actions)
    # A failure is written down before the job that failed is removed.
    assert all(isinstance(action, DeleteJob) for action in again.actions if action not in plan.actions)
    assert decide(next_facts(case.facts, again)) == again


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_status_says_what_will_be_done_before_it_is_done(case: Case) -> None:
    plan = decide(case.facts)
    for action in plan.actions:
        stage = stage_of(plan, action.stage)
        if isinstance(action, Launch):
            assert len(stage.attempts) == action.attempt and stage.attempts[-1].ended is None
        if isinstance(action, DeleteJob):
            earlier = case.facts.stages[action.stage].attempt < len(stage.attempts)
            assert earlier or stage.state is RunState.SUSPENDED or stage.attempts[-1].ended is not None


def check(cluster: Cluster) -> None:
    for name in WORK:
        stage = cluster.status.stage_of(name) or StageStatus(name=name)
        assert stage.failures <= cluster.faults[name], f"{name}: a failure was counted twice"
        assert len(stage.attempts) <= 1 + stage.failures, f"{name}: an attempt that no failure explains"
        assert stage.state is not RunState.FAILED, stage.message


@pytest.mark.parametrize("seed", range(200))
def test_a_run_ends_done_however_often_its_operator_is_killed(seed: int) -> None:
    cluster = Cluster(random.Random(seed), queue="research" if seed % 2 else "")
    for turn in range(MOST_LOOKS):
        toggled = turn < SUSPENDS_UNTIL and cluster.dice.random() < 0.1
        cluster.suspend = turn < SUSPENDS_UNTIL and cluster.suspend != toggled
        look(cluster, KILLED)
        check(cluster)
        if cluster.status.state is RunState.DONE:
            break
        cluster.goes_on()
    assert cluster.status.state is RunState.DONE, cluster.status.message
    assert cluster.results == set(WORK) and all(cluster.made[stage.name] for stage in STAGES)
    for _ in range(20):
        look(cluster, 0)
        cluster.goes_on()
    assert cluster.status.state is RunState.DONE
    assert all(job.phase == "Succeeded" for job in cluster.jobs.values()), "something was left running"
