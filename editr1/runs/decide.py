"""What to do next in a run: pure functions of what is known, shared by every driver and by the cluster's operator."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from editr1.errors import worth_a_retry
from editr1.runs.kinds import KINDS
from editr1.runs.references import Scheme, parse_reference
from editr1.runs.spec import StageSpec


class NextStep(StrEnum):
    """The next step for a stage."""

    SKIP = "skip"
    START = "start"
    RETRY = "retry"
    FINISH = "finish"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """An action, after ``delay`` seconds, and why in words."""

    action: NextStep
    reason: str = ""
    delay: float = 0.0


def before_start(has_result: bool) -> Decision:
    """Whether a stage whose inputs stand must run at all."""
    if has_result:
        return Decision(NextStep.SKIP, "already done for the same inputs, settings and seed")
    return Decision(NextStep.START)


def after_end(exit_code: int, has_result: bool, failures: int, retries: int) -> Decision:
    """What follows the end of an attempt.

    A result is committed last, so it is whole whatever became of the process after it.
    ``failures`` counts the attempts of this drive that ended badly, this one included; backoff doubles from 1 s to 60 s.
    """
    if has_result:
        return Decision(NextStep.FINISH)
    if exit_code == 0:
        return Decision(NextStep.FAIL, "the process ended with 0 but committed no result")
    if not worth_a_retry(exit_code):
        return Decision(NextStep.FAIL, f"exit code {exit_code} is permanent")
    if failures > retries:
        return Decision(NextStep.FAIL, f"exit code {exit_code}, and {retries} retries are used up")
    return Decision(NextStep.RETRY, f"exit code {exit_code} is worth a retry", min(60.0, 2.0 ** (failures - 1)))


def dependencies(stage: StageSpec, stages: Sequence[StageSpec]) -> frozenset[str]:
    """The stages whose outputs ``stage`` reads, itself or through the reward service that scores it."""
    references = [parse_reference(text) for text in stage.inputs.values()]
    found = {reference.stage for reference in references if reference.scheme is Scheme.STAGE}
    service = service_of(stage, stages)
    return frozenset(found) | (dependencies(service, stages) if service else frozenset())


def service_of(stage: StageSpec, stages: Sequence[StageSpec]) -> StageSpec | None:
    """The serve stage that scores ``stage``; None where none does, or where addresses are given."""
    return next((other for other in stages if other.name == stage.reward), None)


def startable(stages: Sequence[StageSpec], done: Set[str]) -> list[StageSpec]:
    """The stages that are not done and whose inputs stand, in the file's order. Services start with who needs them.

    >>> [stage.name for stage in startable(quickstart, {"curate"})]    # doctest: +SKIP
    ['sft']
    """
    return [
        stage
        for stage in stages
        if not KINDS[stage.kind].service and stage.name not in done and dependencies(stage, stages) <= done
    ]


def services_wanted(stages: Sequence[StageSpec], done: Set[str]) -> frozenset[str]:
    """The services that stages which are not done will be scored by, needed now or later."""
    waiting = [stage for stage in stages if stage.name not in done]
    return frozenset(service.name for stage in waiting if (service := service_of(stage, stages)))


def overdue(started: float | None, now: float, limit: float | None) -> float | None:
    """By how many seconds a limit since ``started`` is passed; None where it is not, or where there is none."""
    if started is None or limit is None or now - started <= limit:
        return None
    return now - started - limit
