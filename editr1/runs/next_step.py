"""Pure functions that decide the next step of a run, shared by the local orchestrator and the operator."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from editr1.errors import ExitCode, is_retryable
from editr1.runs.kinds import KINDS
from editr1.runs.references import Scheme, parse_reference
from editr1.runs.spec import StageSpec


class NextStep(StrEnum):
    """Possible next steps of a stage."""

    SKIP = "skip"
    START = "start"
    RETRY = "retry"
    FINISH = "finish"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """The next step of a stage, the reason for it, and the delay in seconds before it."""

    action: NextStep
    reason: str = ""
    delay: float = 0.0


def before_start(has_result: bool) -> Decision:
    """Decide whether a stage whose inputs are complete has to run."""
    if has_result:
        return Decision(NextStep.SKIP, "up to date: a result for the same inputs, settings and seed exists")
    return Decision(NextStep.START)


def after_end(exit_code: int, has_result: bool, failures: int, retries: int) -> Decision:
    """Decide on the next step after an attempt has ended.

    A stage commits its result last, so an existing result is complete regardless of the exit code.

    Args:
        exit_code: exit code of the process; negative for a signal.
        has_result: whether the stage has committed its result.
        failures: number of failed attempts since the run was started, including this one. The delay before a retry is 1 s
            after the first failure and doubles with each further one, up to 60 s.
        retries: maximum number of retries.
    """
    if has_result:
        return Decision(NextStep.FINISH)
    if exit_code == ExitCode.DONE:
        return Decision(NextStep.FAIL, "the process exited with 0 but committed no result")
    if not is_retryable(exit_code):
        return Decision(NextStep.FAIL, f"exit code {exit_code} is permanent")
    if failures > retries:
        return Decision(NextStep.FAIL, f"exit code {exit_code} after all {retries} retries")
    return Decision(NextStep.RETRY, f"exit code {exit_code} is transient", min(60.0, 2.0 ** (failures - 1)))


def dependencies(stage: StageSpec, stages: Sequence[StageSpec]) -> frozenset[str]:
    """Return the names of the stages whose outputs ``stage`` needs, directly or through its reward service."""
    references = [parse_reference(text) for text in stage.inputs.values()]
    found = {reference.stage for reference in references if reference.scheme is Scheme.STAGE}
    service = service_of(stage, stages)
    return frozenset(found) | (dependencies(service, stages) if service else frozenset())


def service_of(stage: StageSpec, stages: Sequence[StageSpec]) -> StageSpec | None:
    """Return the serve stage that scores ``stage``; None if ``stage.reward`` is unset or contains addresses."""
    return next((other for other in stages if other.name == stage.reward), None)


def startable(stages: Sequence[StageSpec], done: Set[str]) -> list[StageSpec]:
    """Return the stages that are not done and whose inputs are complete, in the order of the run file.

    Services are not included, because each starts together with the first stage that it scores.

    >>> [stage.name for stage in startable(quickstart, {"curate"})]    # doctest: +SKIP
    ['sft']
    """
    return [
        stage
        for stage in stages
        if not KINDS[stage.kind].service and stage.name not in done and dependencies(stage, stages) <= done
    ]


def services_wanted(stages: Sequence[StageSpec], done: Set[str]) -> frozenset[str]:
    """Return the names of the services that score at least one stage that is not done."""
    waiting = [stage for stage in stages if stage.name not in done]
    return frozenset(service.name for stage in waiting if (service := service_of(stage, stages)))


def overdue(started: float | None, now: float, limit: float | None) -> float | None:
    """Return by how many seconds ``limit`` is exceeded; None if it is not exceeded, or if a value is None."""
    if started is None or limit is None or now - started <= limit:
        return None
    return now - started - limit
