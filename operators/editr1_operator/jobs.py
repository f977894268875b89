"""What follows for a stage with a job: launched, watched, retried, held, ended."""

from __future__ import annotations

from editr1.errors import ExitCode
from editr1.launch.kubernetes.run_status import AttemptStatus, Reason, RunState, StageStatus
from editr1.launch.kubernetes.state import STUCK_SECONDS, Phase, StageState, Trouble, pods_left, state_of
from editr1.runs.decide import NextStep, after_end, overdue, service_of
from editr1.runs.spec import StageSpec
from editr1_operator.actions import Drop, Hold, Launch, Load, Remove, Resolve
from editr1_operator.board import TROUBLE, closed, ended
from editr1_operator.facts import StageFacts
from editr1_operator.services import Services


class Jobs(Services):
    """Steps of stages that run to their end."""

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
        if facts.result is not None and (facts.uid == "" or facts.leaving or ended(facts)):
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
            attempts=known.attempts if stood else closed(known, self.now, 0, ""),
            ended=self.now,
            pending_since=None,
            not_before=None,
            progress="",
        )

    def _without_job(self, stage: StageSpec, known: StageStatus, facts: StageFacts) -> None:
        self._drop_stuck(stage, facts)
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
        elif known.attempts and not facts.result_read:
            self.actions.append(Load(stage.name))  # the attempt before may have committed it at its end
        else:
            service = service_of(stage, self.spec.stages)
            if service is None or self.serve(service, stage):
                self._launch(stage)

    def _launch(self, stage: StageSpec) -> None:
        known = self.stages[stage.name]
        asked = bool(known.attempts) and known.attempts[-1].ended is None
        attempts = known.attempts if asked else [*known.attempts, AttemptStatus(started=self.now)]
        since = (known.pending_since if asked else None) or self.now
        if overdue(since, self.now, stage.pending_timeout_seconds) is not None:
            self.fail(
                stage,
                Reason.PENDING_TOO_LONG,
                f"{known.message}; it waited {stage.pending_timeout_seconds:g} s",
                code=2,
            )
            return
        refused = asked and known.reason in (Reason.REFUSED, Reason.SETTINGS)
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
            self.set(stage, state=RunState.WAITING, reason=Reason.REFUSED, message=why, pending_since=None)
            return
        counted = facts.uid == known.job_uid and known.not_before is not None
        stale = counted or facts.attempt < len(known.attempts) or facts.uid == known.removed_uid
        if stale:
            self.actions.append(Remove(stage.name, facts.uid))
            held = known.state is RunState.SUSPENDED and self.spec.suspend
            stays = RunState.SUSPENDED if held else RunState.WAITING
            self.set(stage, state=stays, reason=known.reason, message=known.message)
            return
        if facts.uid != known.job_uid:
            known = self.set(stage, job_uid=facts.uid, pods={})
        state = state_of(facts.release)
        if state.phase is Phase.SUCCEEDED:
            if not facts.result_read:
                self.actions.append(Load(stage.name))
            elif pods_left(facts.release.pods, self.now):
                self.set(stage, state=RunState.RUNNING, reason=Reason.RUNNING, message="its last pods end")
                self._drop_stuck(stage, facts)
            else:
                self.fail(stage, Reason.NO_RESULT, "the process ended with 0 but committed no result", code=0)
            return
        if state.phase is Phase.FAILED and not facts.result_read:
            self.actions.append(Load(stage.name))  # it may have been committed just before
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
        self._drop_stuck(stage, facts)
        if not self._lost_node(stage, facts):
            self._alive(stage, state, facts)

    def _suspended(self, stage: StageSpec, state: StageState, facts: StageFacts) -> None:
        job = facts.release.job
        assert job is not None
        known = self.stages[stage.name]
        if self.spec.suspend and job.queue and not job.suspended:
            # What a queue has let go only the queue may hold; resumed, another job waits in it.
            self._hold(stage, Remove(stage.name, facts.uid))
            self.set(stage, message=self.stages[stage.name].message, removed_uid=facts.uid, job_uid="")
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
        elif any(pod.leaving for pod in facts.release.pods):
            # training-operator would take a pod that is still ending for one of the job's, and fail the job for it.
            self._drop_stuck(stage, facts)
            self.set(
                stage, state=RunState.SUSPENDED, reason=Reason.SUSPENDED, message="goes on once its old pods are gone"
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
        if service is not None and not self.serve(service, stage):
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
        if known.held_since is not None or overdue(began, self.now, stage.deadline_seconds) is None:
            return False
        if facts.uid and not facts.leaving:
            self.actions.append(Remove(stage.name, facts.uid))
        self.fail(stage, Reason.DEADLINE, f"deadline of {stage.deadline_seconds:g} s passed", code=ExitCode.TERMINATED)
        return True

    def _lost_node(self, stage: StageSpec, facts: StageFacts) -> bool:
        """Take the pods' identities; returns whether the stage failed over one that changed."""
        known = self.stages[stage.name]
        pods = {pod.name: pod.uid for pod in facts.release.pods if not pod.leaving}
        lost = sorted(name for name, uid in pods.items() if known.pods.get(name, uid) != uid)
        failures = known.failures + bool(lost)  # several at once went with one node
        self.set(stage, pods={**known.pods, **pods}, failures=failures, state=known.state, reason=known.reason)
        if not lost:
            return False
        if failures > stage.retries:
            self.actions.append(Remove(stage.name, facts.uid))
            why = f"pod {', '.join(lost)} was lost, and {stage.retries} retries are used up"
            self.fail(stage, Reason.RETRIES_SPENT, why, code=ExitCode.KILLED)
            return True
        return False

    def _drop_stuck(self, stage: StageSpec, facts: StageFacts) -> None:
        """A pod that is long past its grace sits on a node that is gone; nothing takes its place until it goes."""
        stuck = [pod for pod in facts.release.pods if pod.leaving and self.now > pod.gone_by + STUCK_SECONDS]
        self.actions += [Drop(stage.name, pod.name, pod.uid) for pod in stuck]

    def _alive(self, stage: StageSpec, state: StageState, facts: StageFacts) -> None:
        known = self.stages[stage.name]
        if state.phase is Phase.RUNNING and state.trouble in (None, Trouble.NOT_READY):
            self.set(
                stage,
                state=RunState.RUNNING,
                reason=TROUBLE[state.trouble] if state.trouble else Reason.RUNNING,
                message=state.reason,
                pending_since=None,
                progress=facts.progress or known.progress,
            )
            return
        since = known.pending_since or self.now
        reason = TROUBLE[state.trouble] if state.trouble else Reason.PODS_STARTING
        if overdue(since, self.now, stage.pending_timeout_seconds) is not None:
            self.actions.append(Remove(stage.name, facts.uid))
            why = f"{state.reason}; it waited {stage.pending_timeout_seconds:g} s"
            self.fail(stage, Reason.PENDING_TOO_LONG, why, code=ExitCode.TERMINATED)
            return
        running = state.phase is Phase.RUNNING  # some pods of several do
        shown = RunState.RUNNING if running else RunState.STARTING
        self.set(stage, state=shown, reason=reason, message=state.reason, pending_since=since)

    def _ended(self, stage: StageSpec, code: int, why: str) -> None:
        known = self.stages[stage.name]
        failures = known.failures + 1
        decision = after_end(code, False, failures, stage.retries)
        message = f"{decision.reason}{': ' + why if why else ''}"
        if decision.action is not NextStep.RETRY:
            spent = code >= 128 or code < 0
            self.fail(stage, Reason.RETRIES_SPENT if spent else Reason.EXIT_PERMANENT, message, code=code)
            return
        self.set(
            stage,
            state=RunState.WAITING,
            reason=Reason.RETRYING,
            message=message,
            attempts=closed(known, self.now, code, why),
            failures=failures,
            not_before=self.now + decision.delay,
            pending_since=None,
            progress="",
        )


def _why(state: StageState, facts: StageFacts) -> str:
    return f"{state.reason}: {facts.last_error}" if facts.last_error else state.reason


def _last_end(known: StageStatus) -> str:
    """Why the attempt before ended."""
    last = next((item for item in reversed(known.attempts) if item.ended is not None), None)
    if last is None:
        return ""
    return f"exit code {last.exit_code} is worth a retry{': ' + last.reason if last.reason else ''}"
