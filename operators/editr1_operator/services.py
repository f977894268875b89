"""What follows for a reward service: brought up for the stages it scores, kept while they run, given up after."""

from __future__ import annotations

from editr1.errors import ExitCode
from editr1.launch.kubernetes.run_status import AttemptStatus, Reason, RunState
from editr1.launch.kubernetes.state import Phase, state_of
from editr1.runs.decide import overdue, service_of
from editr1.runs.spec import StageSpec
from editr1_operator.actions import Leave, Remove, Resolve, Serve
from editr1_operator.board import TROUBLE, Board, closed, succeeded


class Services(Board):
    """Steps of services."""

    def serve(self, service: StageSpec, stage: StageSpec) -> bool:
        """Whether the service answers; asks for it where it does not, and says so of the stage."""
        self.served.add(service.name)
        known, facts = self.stages[service.name], self.facts.stages[service.name]
        waits = {"state": RunState.STARTING, "reason": Reason.SERVICE_STARTING}
        if known.state is RunState.FAILED:
            self.fail(
                stage, known.reason or Reason.STAGE_FAILED, f"{service.name}: {known.message}", code=ExitCode.UNEXPECTED
            )
            return False
        if not known.key:
            self.actions.append(Resolve(service.name))
            self.set(stage, **waits, message=_waits_for(service, ""))
            return False
        since = known.pending_since or self.now
        if facts.uid == "" or facts.leaving or not facts.owned:
            if overdue(since, self.now, service.pending_timeout_seconds) is not None:
                return self._unserved(service, stage, known.message or "it was not made")
            self.actions.append(Serve(service.name))
            refused = known.reason in (Reason.REFUSED, Reason.SETTINGS)
            self.set(
                service,
                state=RunState.STARTING,
                reason=known.reason if refused else Reason.PODS_STARTING,
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
        reason = TROUBLE[state.trouble] if state.trouble else Reason.PODS_STARTING
        if overdue(since, self.now, service.pending_timeout_seconds) is not None:
            return self._unserved(service, stage, state.reason)
        self.set(service, state=RunState.STARTING, reason=reason, message=state.reason, pending_since=since)
        self.set(stage, **waits, message=_waits_for(service, state.reason))
        return False

    def _unserved(self, service: StageSpec, stage: StageSpec, why: str) -> bool:
        """The service did not come in time; ``rest`` gives up what there is of it."""
        told = f"{why}; it waited {service.pending_timeout_seconds:g} s"
        self.fail(service, Reason.PENDING_TOO_LONG, told, code=ExitCode.TERMINATED)
        self.fail(stage, Reason.PENDING_TOO_LONG, f"{service.name}: {told}", code=ExitCode.TERMINATED)
        return False

    def keep_service(self, stage: StageSpec) -> None:
        """The service of a stage that has begun stays, between two attempts too; its client waits where it is missing."""
        service = service_of(stage, self.spec.stages)
        kept = self.stages[stage.name]
        if service is None or service.name in self.served or self.spec.suspend or kept.over or not kept.attempts:
            return
        if succeeded(self.facts.stages[stage.name]):
            return  # its result is about to be read
        self.serve(service, stage)
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
        used = {self.stages[name].release for name in self.served if name != service.name}
        if facts.owned and facts.uid and not facts.leaving and known.release not in used:
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
                attempts=closed(known, self.now, 0, ""),
                ended=self.now,
                pending_since=None,
            )


def _waits_for(service: StageSpec, why: str) -> str:
    return f"waits for {service.name}{': ' + why if why else ''}"
