"""What to do next with a run on a cluster: pure functions of what stands there and of the time.

``decide`` is asked again after every change; it returns what the status should say and what should be done. The status is
written before anything is done, and every action may be applied twice, so an operator killed in between loses nothing:
the next one decides the same from the same facts.

=========================================  =============================================================
what is seen of a stage                    what follows
=========================================  =============================================================
inputs not there                           waits
its result stands in the store             done, nothing is started
no job, none asked for                     the service first where one scores it, then attempt 1
no job, one asked for, never seen          the same attempt again
no job, one was seen                       the attempt ended badly (137)
job of an earlier attempt                  removed
job pending                                says why; past ``pending_s`` removed, failed
pod under an old name with a new identity  a node was lost: counts as a failure, the job goes on
job failed, code worth a retry             removed, and after a backoff the next attempt from the checkpoint
job failed, code permanent, retries spent  failed
job succeeded                              done, or failed where it committed no result
``deadline_s`` passed                      removed, failed
``suspend``                                job held, service given up; later it goes on from the checkpoint
=========================================  =============================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from editr1.runs.decide import Action as Next
from editr1.runs.decide import after_end, dependencies, overdue, service_of, services_wanted, startable
from editr1.runs.exit_codes import ExitCode
from editr1.runs.kinds import KINDS
from editr1.runs.kubernetes.state import Phase, StageState, Trouble, state_of
from editr1.runs.spec import RunBody, StageSpec
from editr1_operator.actions import Action, Hold, Launch, Leave, Load, Remove, Resolve, Serve
from editr1_operator.conditions import summarised
from editr1_operator.facts import RunFacts, StageFacts
from editr1_operator.status import AttemptStatus, Reason, RunState, RunStatus, StageStatus

_TROUBLE = {
    Trouble.NO_NODE: Reason.NO_NODE,
    Trouble.NO_IMAGE: Reason.NO_IMAGE,
    Trouble.NO_QUOTA: Reason.NO_QUOTA,
    Trouble.REFUSED: Reason.PODS_REFUSED,
    Trouble.CANNOT_START: Reason.CANNOT_START,
    Trouble.NOT_READY: Reason.PODS_STARTING,
}


@dataclass(frozen=True)
class Plan:
    """What the status should say, then what should be done."""

    status: RunStatus
    actions: tuple[Action, ...]


def decide(facts: RunFacts) -> Plan:
    """The next step of a run."""
    run = _Run(facts)
    spec = facts.spec
    done = {name for name, stage in run.stages.items() if stage.state is RunState.DONE}
    ready = {stage.name for stage in startable(spec.stages, done)}
    failed = sorted(name for name, stage in run.stages.items() if stage.state is RunState.FAILED)
    for stage in spec.stages:
        if KINDS[stage.kind].service:
            continue
        if run.stages[stage.name].over:
            run.clear(stage)
        elif failed and not run.stages[stage.name].attempts:
            run.set(stage, state=RunState.WAITING, reason=Reason.STAGE_FAILED, message=f"{', '.join(failed)} failed")
        elif stage.name in ready:
            run.step(stage)
            run.keep_service(stage)
        else:
            missing = sorted(dependencies(stage, spec.stages) - done)
            run.set(
                stage, state=RunState.WAITING, reason=Reason.INPUTS_MISSING, message=f"waits for {', '.join(missing)}"
            )
    finished = {name for name, stage in run.stages.items() if stage.over}
    for stage in spec.stages:
        failed_service = run.stages[stage.name].state is RunState.FAILED
        if KINDS[stage.kind].service and (failed_service or stage.name not in run.served):
            run.rest(stage, wanted=stage.name in services_wanted(spec.stages, finished))
    status = replaced(facts.status, stages=[run.stages[stage.name] for stage in spec.stages])
    return Plan(summarised(status, spec, facts.generation, facts.now), tuple(run.actions))


def replaced(status: RunStatus, **changes: object) -> RunStatus:
    """``status`` with some fields changed."""
    return status.model_copy(update=changes)


class _Run:
    """Collects new stage statuses and actions."""

    def __init__(self, facts: RunFacts) -> None:
        self.facts, self.now = facts, facts.now
        self.stages = {stage.name: _known(facts.status, stage) for stage in facts.spec.stages}
        self.actions: list[Action] = []
        self.served: set[str] = set()

    @property
    def spec(self) -> RunBody:
        return self.facts.spec

    def set(self, stage: StageSpec, **changes: object) -> StageStatus:
        known = self.stages[stage.name]
        self.stages[stage.name] = known.model_copy(update={"message": "", "not_before": known.not_before, **changes})
        return self.stages[stage.name]

    def clear(self, stage: StageSpec) -> None:
        """A stage that failed while its job still ran leaves none behind."""
        facts = self.facts.stages[stage.name]
        over = (Phase.SUCCEEDED, Phase.FAILED, Phase.MISSING)
        failed = self.stages[stage.name].state is RunState.FAILED
        if failed and facts.uid and facts.owned and not facts.leaving and state_of(facts.release).phase not in over:
            self.actions.append(Remove(stage.name, facts.uid))

    def step(self, stage: StageSpec) -> None:
        """A stage whose inputs stand."""
        known, facts = self.stages[stage.name], self.facts.stages[stage.name]
        if not known.key:
            self.actions.append(Resolve(stage.name))
            return
        if facts.result is not None and (facts.uid == "" or facts.leaving or _succeeded(facts)):
            self._done(stage, facts)
        elif facts.uid == "" or facts.leaving:
            self._without_job(stage, known, facts)
        else:
            self._with_job(stage, known, facts)

    def _done(self, stage: StageSpec, facts: StageFacts) -> None:
        assert facts.result is not None
        known = self.stages[stage.name]
        stood = not known.attempts
        self.set(
            stage,
            state=RunState.DONE,
            reason=Reason.STANDS if stood else Reason.DONE,
            message="already done for the same inputs, settings and seed" if stood else "",
            outputs=facts.result.outputs,
            metrics=facts.result.metrics,
            attempts=known.attempts if stood else _closed(known, self.now, 0, ""),
            ended=self.now,
            pending_since=None,
            not_before=None,
            progress="",
        )

    def _without_job(self, stage: StageSpec, known: StageStatus, facts: StageFacts) -> None:
        if known.job_uid and known.not_before is None and known.held_since is None:
            if not facts.result_read:
                self.actions.append(Load(stage.name))
                return
            # Nothing of ours removes a job without saying so in the status first.
            self._ended(stage, ExitCode.KILLED, "the job was removed by somebody else")
            return
        if self.spec.suspend:
            self._hold(stage, None)
        elif self._past_deadline(stage, facts):
            return
        elif known.not_before is not None and (facts.leaving or self.now < known.not_before):
            self.set(stage, state=RunState.WAITING, reason=Reason.RETRYING, message=_last_end(known))
        elif facts.leaving:
            self.set(stage, state=RunState.STARTING, reason=Reason.PODS_STARTING, message="its last pods are leaving")
        else:
            service = service_of(stage, self.spec.stages)
            if service is None or self._served(service, stage):
                self._launch(stage)

    def _launch(self, stage: StageSpec) -> None:
        known = self.stages[stage.name]
        asked = bool(known.attempts) and known.attempts[-1].ended is None
        attempts = known.attempts if asked else [*known.attempts, AttemptStatus(started=self.now)]
        since = (known.pending_since if asked else None) or self.now
        if overdue(since, self.now, stage.pending_s) is not None:
            self._fail(stage, Reason.PENDING_TOO_LONG, f"{known.message}; it waited {stage.pending_s:g} s", code=2)
            return
        refused = asked and known.reason is Reason.REFUSED
        self.set(
            stage,
            state=RunState.STARTING,
            reason=known.reason if refused else Reason.PODS_STARTING,
            message=known.message if refused else f"attempt {len(attempts)}",
            attempts=attempts,
            not_before=None,
            pending_since=since,
            **self._held(known),
            job_uid="",
            pods={},
            progress="",
        )
        self.actions.append(Launch(stage.name, len(attempts)))

    def _with_job(self, stage: StageSpec, known: StageStatus, facts: StageFacts) -> None:
        if not facts.owned:
            why = f"a job {facts.release.name} is there that belongs to something else"
            self.set(stage, state=RunState.WAITING, reason=Reason.REFUSED, message=why)
            return
        stale = facts.attempt < len(known.attempts) or (facts.uid == known.job_uid and known.not_before is not None)
        if stale:
            self.actions.append(Remove(stage.name, facts.uid))
            self.set(stage, state=RunState.WAITING, reason=known.reason, message=known.message)
            return
        if facts.uid != known.job_uid:
            known = self.set(stage, job_uid=facts.uid, pods={})
        state = state_of(facts.release)
        if state.phase is Phase.SUCCEEDED:
            if facts.result_read:
                self._fail(stage, Reason.NO_RESULT, "the process ended with 0 but committed no result", code=0)
            else:
                self.actions.append(Load(stage.name))
            return
        if state.phase is Phase.FAILED:
            code = ExitCode.KILLED if state.exit_code is None else state.exit_code
            self._ended(stage, code, _why(state, facts))
            return
        if self.spec.suspend or state.phase is Phase.SUSPENDED:
            self._suspended(stage, state, facts)
            return
        if self._past_deadline(stage, facts):
            return
        self.set(stage, state=known.state, reason=known.reason, message=known.message, **self._held(known))
        if not self._lost_node(stage, facts):
            self._alive(stage, state, facts)

    def _suspended(self, stage: StageSpec, state: StageState, facts: StageFacts) -> None:
        job = facts.release.job
        assert job is not None
        known = self.stages[stage.name]
        if self.spec.suspend and job.queue:
            # What a queue has let go only the queue may hold; resumed, another job waits in it.
            self._hold(stage, Remove(stage.name, facts.uid))
        elif self.spec.suspend:
            self._hold(stage, None if job.suspended else Hold(stage.name, True))
        elif job.queue:
            since = known.held_since or self.now
            self.set(
                stage,
                state=RunState.WAITING,
                reason=Reason.QUEUED,
                message=state.reason,
                pending_since=None,
                held_since=since,
                pods={},
            )
        else:
            self._go_on(stage)

    def _hold(self, stage: StageSpec, action: Hold | Remove | None) -> None:
        known = self.stages[stage.name]
        if action:
            self.actions.append(action)
        self.set(
            stage,
            state=RunState.SUSPENDED,
            reason=Reason.SUSPENDED,
            message="a checkpoint stands; resume goes on from there" if known.attempts else "not started yet",
            held_since=known.held_since or self.now,
            pending_since=None,
            pods={},
        )

    def _held(self, known: StageStatus) -> dict[str, object]:
        """The time held so far, now that the stage is held no more."""
        held = self.now - known.held_since if known.held_since is not None and known.attempts else 0.0
        return {"held_since": None, "held_s": known.held_s + held}

    def _go_on(self, stage: StageSpec) -> None:
        service = service_of(stage, self.spec.stages)
        if service is not None and not self._served(service, stage):
            return
        known = self.stages[stage.name]
        self.actions.append(Hold(stage.name, False))
        self.set(
            stage,
            state=RunState.STARTING,
            reason=Reason.PODS_STARTING,
            pending_since=self.now,
            pods={},
            **self._held(known),
        )

    def _past_deadline(self, stage: StageSpec, facts: StageFacts) -> bool:
        known = self.stages[stage.name]
        began = known.attempts[0].started + known.held_s if known.attempts else None
        if known.held_since is not None or overdue(began, self.now, stage.deadline_s) is None:
            return False
        if facts.uid and not facts.leaving:
            self.actions.append(Remove(stage.name, facts.uid))
        self._fail(stage, Reason.DEADLINE, f"deadline of {stage.deadline_s:g} s passed", code=ExitCode.TERMINATED)
        return True

    def _lost_node(self, stage: StageSpec, facts: StageFacts) -> bool:
        """Take the pods' identities; returns whether the stage failed over one that changed."""
        known = self.stages[stage.name]
        pods = {pod.name: pod.uid for pod in facts.release.pods if not pod.leaving}
        lost = sorted(name for name, uid in pods.items() if known.pods.get(name, uid) != uid)
        failures = known.failures + len(lost)
        self.set(stage, pods={**known.pods, **pods}, failures=failures, state=known.state, reason=known.reason)
        if not lost:
            return False
        if failures > stage.retries:
            self.actions.append(Remove(stage.name, facts.uid))
            why = f"pod {', '.join(lost)} was lost, and {stage.retries} retries are used up"
            self._fail(stage, Reason.RETRIES_SPENT, why, code=ExitCode.KILLED)
            return True
        return False

    def _alive(self, stage: StageSpec, state: StageState, facts: StageFacts) -> None:
        known = self.stages[stage.name]
        if state.phase is Phase.RUNNING:
            self.set(
                stage,
                state=RunState.RUNNING,
                reason=_TROUBLE[state.trouble] if state.trouble else Reason.RUNNING,
                message=state.reason,
                pending_since=None,
                progress=facts.progress or known.progress,
            )
            return
        since = known.pending_since or self.now
        reason = _TROUBLE[state.trouble] if state.trouble else Reason.PODS_STARTING
        if overdue(since, self.now, stage.pending_s) is not None:
            self.actions.append(Remove(stage.name, facts.uid))
            why = f"{state.reason}; it waited {stage.pending_s:g} s"
            self._fail(stage, Reason.PENDING_TOO_LONG, why, code=ExitCode.TERMINATED)
            return
        self.set(stage, state=RunState.STARTING, reason=reason, message=state.reason, pending_since=since)

    def _ended(self, stage: StageSpec, code: int, why: str) -> None:
        known = self.stages[stage.name]
        failures = known.failures + 1
        decision = after_end(code, False, failures, stage.retries)
        message = f"{decision.reason}{': ' + why if why else ''}"
        if decision.action is not Next.RETRY:
            spent = code >= 128 or code < 0
            self._fail(stage, Reason.RETRIES_SPENT if spent else Reason.EXIT_PERMANENT, message, code=code)
            return
        self.set(
            stage,
            state=RunState.WAITING,
            reason=Reason.RETRYING,
            message=message,
            attempts=_closed(known, self.now, code, why),
            failures=failures,
            not_before=self.now + decision.delay,
            pending_since=None,
            progress="",
        )

    def _fail(self, stage: StageSpec, reason: Reason, why: str, *, code: int) -> None:
        known = self.stages[stage.name]
        self.set(
            stage,
            state=RunState.FAILED,
            reason=reason,
            message=why,
            attempts=_closed(known, self.now, code, why),
            ended=self.now,
            pending_since=None,
            not_before=None,
        )

    def _served(self, service: StageSpec, stage: StageSpec) -> bool:
        """Whether the service answers; asks for it where it does not, and says so of the stage."""
        self.served.add(service.name)
        known, facts = self.stages[service.name], self.facts.stages[service.name]
        waits = {"state": RunState.STARTING, "reason": Reason.SERVICE_STARTING}
        if known.state is RunState.FAILED:
            self._fail(
                stage, known.reason or Reason.STAGE_FAILED, f"{service.name}: {known.message}", code=ExitCode.BUG
            )
            return False
        if not known.key:
            self.actions.append(Resolve(service.name))
            self.set(stage, **waits, message=_waits_for(service, ""))
            return False
        since = known.pending_since or self.now
        if facts.uid == "" or facts.leaving or not facts.owned:
            if overdue(since, self.now, service.pending_s) is not None:
                return self._unserved(service, stage, known.message or "it was not made")
            self.actions.append(Serve(service.name))
            refused = known.reason is Reason.REFUSED
            self.set(
                service,
                state=RunState.STARTING,
                reason=Reason.REFUSED if refused else Reason.PODS_STARTING,
                message=known.message if refused else "",
                pending_since=since,
            )
            self.set(stage, **waits, message=_waits_for(service, known.message if refused else ""))
            return False
        state = state_of(facts.release)
        if state.phase is Phase.READY:
            attempts = known.attempts or [AttemptStatus(started=known.pending_since or self.now)]
            self.set(
                service,
                state=RunState.RUNNING,
                reason=Reason.RUNNING,
                message=state.reason,
                pending_since=None,
                attempts=attempts,
                job_uid=facts.uid,
            )
            return True
        reason = _TROUBLE[state.trouble] if state.trouble else Reason.PODS_STARTING
        if overdue(since, self.now, service.pending_s) is not None:
            return self._unserved(service, stage, state.reason)
        self.set(service, state=RunState.STARTING, reason=reason, message=state.reason, pending_since=since)
        self.set(stage, **waits, message=_waits_for(service, state.reason))
        return False

    def _unserved(self, service: StageSpec, stage: StageSpec, why: str) -> bool:
        """The service did not come in time; ``rest`` gives up what there is of it."""
        told = f"{why}; it waited {service.pending_s:g} s"
        self._fail(service, Reason.PENDING_TOO_LONG, told, code=ExitCode.TERMINATED)
        self._fail(stage, Reason.PENDING_TOO_LONG, f"{service.name}: {told}", code=ExitCode.TERMINATED)
        return False

    def keep_service(self, stage: StageSpec) -> None:
        """The service of a stage that has begun stays, between two attempts too; its client waits where it is missing."""
        service = service_of(stage, self.spec.stages)
        kept = self.stages[stage.name]
        if service is None or service.name in self.served or self.spec.suspend or kept.over or not kept.attempts:
            return
        if _succeeded(self.facts.stages[stage.name]):
            return  # its result is about to be read
        self._served(service, stage)
        if self.stages[stage.name].state is RunState.FAILED:
            self._stop(stage)
        else:
            self.stages[stage.name] = kept

    def _stop(self, stage: StageSpec) -> None:
        facts = self.facts.stages[stage.name]
        if facts.uid and facts.owned and not facts.leaving:
            self.actions.append(Remove(stage.name, facts.uid))

    def rest(self, service: StageSpec, *, wanted: bool) -> None:
        """A service that nobody needs at this moment is given up."""
        known, facts = self.stages[service.name], self.facts.stages[service.name]
        if facts.owned and facts.uid and not facts.leaving:
            self.actions.append(Leave(service.name))
        if known.state is RunState.FAILED:
            return
        if wanted:
            held = self.spec.suspend
            self.set(
                service,
                state=RunState.SUSPENDED if held else RunState.WAITING,
                reason=Reason.SUSPENDED if held else Reason.INPUTS_MISSING,
                message="starts with the stage that it scores",
                pending_since=None,
            )
        elif known.state is not RunState.DONE:
            self.set(
                service,
                state=RunState.DONE,
                reason=Reason.DONE,
                attempts=_closed(known, self.now, 0, ""),
                ended=self.now,
                pending_since=None,
            )


def _known(status: RunStatus, stage: StageSpec) -> StageStatus:
    return status.stage_of(stage.name) or StageStatus(name=stage.name, kind=str(stage.kind))


def _succeeded(facts: StageFacts) -> bool:
    return state_of(facts.release).phase is Phase.SUCCEEDED


def _why(state: StageState, facts: StageFacts) -> str:
    return f"{state.reason}: {facts.last_error}" if facts.last_error else state.reason


def _closed(known: StageStatus, now: float, code: int, why: str) -> list[AttemptStatus]:
    """The attempts with the newest ended."""
    if not known.attempts or known.attempts[-1].ended is not None:
        return known.attempts
    last = known.attempts[-1].model_copy(update={"ended": now, "exit_code": int(code), "reason": why})
    return [*known.attempts[:-1], last]


def _last_end(known: StageStatus) -> str:
    """Why the attempt before ended."""
    last = next((item for item in reversed(known.attempts) if item.ended is not None), None)
    if last is None:
        return ""
    return f"exit code {last.exit_code} is worth a retry{': ' + last.reason if last.reason else ''}"


def _waits_for(service: StageSpec, why: str) -> str:
    return f"waits for {service.name}{': ' + why if why else ''}"
