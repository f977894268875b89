"""Decide the next step of a run: pure functions, shared by the orchestrator and the cluster's operator."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from editr1.errors import is_retryable
from editr1.runs.kinds import KINDS
from editr1.runs.references import Scheme, parse_reference
from editr1.runs.spec import StageSpec


class NextStep(StrEnum):
    """What to do with a stage next."""

    SKIP = "skip"
    START = "start"
    RETRY = "retry"
    FINISH = "finish"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """The next step of a stage, to be taken after ``delay`` seconds, and the reason for it."""

    action: NextStep
    reason: str = ""
    delay: float = 0.0


def before_start(has_result: bool) -> Decision:
    """Decide whether a stage whose inputs are complete has to run."""
    if has_result:
        return Decision(NextStep.SKIP, "up to date: a result for the same inputs, settings and seed exists")
    return Decision(NextStep.START)


def after_end(exit_code: int, has_result: bool, failures: int, retries: int) -> Decision:
    """Decide what follows the end of an attempt.

    A result is committed last, so it is complete whatever happened to the process afterwards.

    Args:
        exit_code: exit code of the process; negative for a signal.
        has_result: whether the stage has committed its result.
        failures: failed attempts since the run was started, this one included. The delay before a retry doubles with
            each, from 1 s to 60 s.
        retries: failed attempts that may be followed by another.
    """
    if has_result:
        return Decision(NextStep.FINISH)
    if exit_code == 0:
        return Decision(NextStep.FAIL, "the process exited with 0 but committed no result")
    if not is_retryable(exit_code):
        return Decision(NextStep.FAIL, f"exit code {exit_code} is permanent")
    if failures > retries:
        return Decision(NextStep.FAIL, f"exit code {exit_code} after all {retries} retries")
    return Decision(NextStep.RETRY, f"exit code {exit_code} is transient", min(60.0, 2.0 ** (failures - 1)))


def dependencies(stage: StageSpec, stages: Sequence[StageSpec]) -> frozenset[str]:
    """Return the stages whose outputs ``stage`` needs, directly or through the reward service that scores it."""
    references = [parse_reference(text) for text in stage.inputs.values()]
    found = {reference.stage for reference in references if reference.scheme is Scheme.STAGE}
    service = service_of(stage, stages)
    return frozenset(found) | (dependencies(service, stages) if service else frozenset())


def service_of(stage: StageSpec, stages: Sequence[StageSpec]) -> StageSpec | None:
    """Return the serve stage that scores ``stage``; None if it is not scored or names addresses."""
    return next((other for other in stages if other.name == stage.reward), None)


def startable(stages: Sequence[StageSpec], done: Set[str]) -> list[StageSpec]:
    """Return the stages that can start, in the run file's order: not done, and all inputs complete.

    Services are left out: they start with the first stage that they score.

    >>> [stage.name for stage in startable(quickstart, {"curate"})]    # doctest: +SKIP
    ['sft']
    """
    return [
        stage
        for stage in stages
        if not KINDS[stage.kind].service and stage.name not in done and dependencies(stage, stages) <= done
    ]


def services_wanted(stages: Sequence[StageSpec], done: Set[str]) -> frozenset[str]:
    """Return the services that score a stage that is not done."""
    waiting = [stage for stage in stages if stage.name not in done]
    return frozenset(service.name for stage in waiting if (service := service_of(stage, stages)))


def overdue(started: float | None, now: float, limit: float | None) -> float | None:
    """Return by how many seconds ``limit`` is exceeded; None if it is not, or if there is no limit or no start."""
    if started is None or limit is None or now - started <= limit:
        return None
    return now - started - limit
