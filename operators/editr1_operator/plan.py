"""The plan of a run's next step: the new status of each stage, and the actions to take.

A plan is immutable. The functions that decide about a stage take a plan and return a copy with their changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from editr1.errors import failure_code
from editr1.launch.kubernetes.run_status import AttemptStatus, Reason, RunState, StageStatus
from editr1.runs.spec import RunBody, StageSpec
from editr1_operator.actions import Action
from editr1_operator.observed import ObservedRun, ObservedStage


@dataclass(frozen=True)
class PlanBuilder:
    """Builder of the plan for one run. It is immutable: each method returns a changed copy."""

    observed: ObservedRun
    stages: Mapping[str, StageStatus]
    """New status of each stage by stage name."""
    actions: tuple[Action, ...] = ()
    services: frozenset[str] = frozenset()
    """Names of the reward services that at least one stage needs now."""

    @classmethod
    def start(cls, observed: ObservedRun) -> PlanBuilder:
        """Return a plan without actions, in which each stage keeps its last status."""
        stages = {
            stage.name: observed.status.stage_of(stage.name) or StageStatus(name=stage.name, kind=str(stage.kind))
            for stage in observed.spec.stages
        }
        return cls(observed, stages)

    @property
    def spec(self) -> RunBody:
        """Specification of the run."""
        return self.observed.spec

    @property
    def now(self) -> float:
        """Time of the observation in seconds since the epoch."""
        return self.observed.now

    def status_of(self, stage: StageSpec) -> StageStatus:
        """Return the new status of a stage, as planned so far."""
        return self.stages[stage.name]

    def observed_of(self, stage: StageSpec) -> ObservedStage:
        """Return the observed state of a stage."""
        return self.observed.stages[stage.name]

    def act(self, *actions: Action) -> PlanBuilder:
        """Return a copy with the given actions appended."""
        return replace(self, actions=(*self.actions, *actions))

    def use_service(self, service: StageSpec) -> PlanBuilder:
        """Return a copy in which this reward service is marked as needed."""
        return replace(self, services=self.services | {service.name})

    def update(self, stage: StageSpec, **changes: Any) -> PlanBuilder:
        """Return a copy with changed fields in the status of a stage. The message is cleared unless a new one is given."""
        return self.put(self.status_of(stage).model_copy(update={"message": "", **changes}))

    def put(self, status: StageStatus) -> PlanBuilder:
        """Return a copy in which the status of a stage is replaced with ``status``."""
        return replace(self, stages={**self.stages, status.name: status})

    def fail(self, stage: StageSpec, reason: Reason, message: str, *, code: int) -> PlanBuilder:
        """Return a copy in which the stage has failed. ``code`` becomes the exit code of its newest attempt."""
        return self.update(
            stage,
            state=RunState.FAILED,
            reason=reason,
            message=message,
            attempts=close_attempt(self.status_of(stage), self.now, failure_code(code), message),
            ended=self.now,
            pending_since=None,
            not_before=None,
        )


def close_attempt(status: StageStatus, now: float, code: int, reason: str) -> list[AttemptStatus]:
    """Return the attempts of a stage.

    If the newest attempt has not ended, its end in the returned list is the current time.
    """
    if not status.attempts or status.attempts[-1].ended is not None:
        return status.attempts
    last = status.attempts[-1].model_copy(update={"ended": now, "exit_code": int(code), "reason": reason})
    return [*status.attempts[:-1], last]
