"""Where a decision collects what the status will say and what will be done."""

from __future__ import annotations

from editr1.launch.kubernetes.run_status import AttemptStatus, Reason, RunState, RunStatus, StageStatus
from editr1.launch.kubernetes.state import Phase, Trouble, state_of
from editr1.runs.spec import RunBody, StageSpec
from editr1_operator.actions import Action
from editr1_operator.facts import RunFacts, StageFacts

TROUBLE = {
    Trouble.NO_NODE: Reason.NO_NODE,
    Trouble.NO_IMAGE: Reason.NO_IMAGE,
    Trouble.NO_QUOTA: Reason.NO_QUOTA,
    Trouble.REFUSED: Reason.PODS_REFUSED,
    Trouble.CANNOT_START: Reason.CANNOT_START,
    Trouble.NOT_READY: Reason.PODS_STARTING,
}
"""What keeps a pod from running, as the status names it."""


class Board:
    """New stage statuses and actions, begun from the old ones."""

    def __init__(self, facts: RunFacts) -> None:
        self.facts, self.now = facts, facts.now
        self.stages = {stage.name: _known(facts.status, stage) for stage in facts.spec.stages}
        self.actions: list[Action] = []
        self.served: set[str] = set()

    @property
    def spec(self) -> RunBody:
        """What the run is to do."""
        return self.facts.spec

    def set(self, stage: StageSpec, **changes: object) -> StageStatus:
        """Change fields of a stage's status; a message that is not given is taken away."""
        known = self.stages[stage.name]
        self.stages[stage.name] = known.model_copy(update={"message": "", **changes})
        return self.stages[stage.name]

    def fail(self, stage: StageSpec, reason: Reason, why: str, *, code: int) -> None:
        """The stage ends without its result."""
        known = self.stages[stage.name]
        self.set(
            stage,
            state=RunState.FAILED,
            reason=reason,
            message=why,
            attempts=closed(known, self.now, code, why),
            ended=self.now,
            pending_since=None,
            not_before=None,
        )


def _known(status: RunStatus, stage: StageSpec) -> StageStatus:
    return status.stage_of(stage.name) or StageStatus(name=stage.name, kind=str(stage.kind))


def ended(facts: StageFacts) -> bool:
    """Whether the stage's job is over, well or not."""
    return state_of(facts.release).phase in (Phase.SUCCEEDED, Phase.FAILED)


def succeeded(facts: StageFacts) -> bool:
    """Whether the stage's job says that it ended well."""
    return state_of(facts.release).phase is Phase.SUCCEEDED


def closed(known: StageStatus, now: float, code: int, why: str) -> list[AttemptStatus]:
    """The attempts with the newest ended."""
    if not known.attempts or known.attempts[-1].ended is not None:
        return known.attempts
    last = known.attempts[-1].model_copy(update={"ended": now, "exit_code": int(code), "reason": why})
    return [*known.attempts[:-1], last]
