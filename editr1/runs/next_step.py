"""Pure functions that decide what to do next in a run. The local orchestrator and the Kubernetes operator share them."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from editr1.errors import ExitCode, is_retryable
from editr1.runs.kinds import KINDS
from editr1.runs.references import Scheme, parse_reference
from editr1.runs.spec import StageSpec

FIRST_RETRY_SECONDS = 1.0
"""Delay in seconds before the first retry of a stage. The delay doubles with each further failure."""
MAX_RETRY_SECONDS = 60.0
"""Maximum delay in seconds before a retry of a stage."""
NO_RESULT = "the process of the stage exited with code 0 but committed no result; read its log"
"""Reason for the failure of a stage whose process reported success."""


class NextStep(StrEnum):
    """What to do next with a stage."""

    SKIP = "skip"
    START = "start"
    RETRY = "retry"
    FINISH = "finish"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """What to do next with a stage, for what ``reason``, and after how many seconds (``delay``)."""

    action: NextStep
    reason: str = ""
    delay: float = 0.0


def before_start(has_result: bool) -> Decision:
    """Decide whether to start or skip a stage whose inputs are available.

    ``has_result``: whether :func:`editr1.runs.partial.result_to_reuse` found a result.
    """
    if has_result:
        return Decision(NextStep.SKIP, "up to date: a result for the same inputs, settings and seed exists")
    return Decision(NextStep.START)


def after_end(exit_code: int, has_result: bool, failures: int, retries: int) -> Decision:
    """Decide what to do after an attempt of a stage has ended.

    A stage commits its result as its last action, so an existing result is complete whatever the exit code is.

    Args:
        exit_code: exit code of the process; negative if a signal ended it.
        has_result: whether the stage has committed its result.
        failures: number of failed attempts since the run was started, including this one. It determines the delay before a
            retry (:data:`FIRST_RETRY_SECONDS`, :data:`MAX_RETRY_SECONDS`).
        retries: maximum number of retries.
    """
    if has_result:
        return Decision(NextStep.FINISH)
    if exit_code == ExitCode.DONE:
        return Decision(NextStep.FAIL, NO_RESULT)
    if not is_retryable(exit_code):
        return Decision(NextStep.FAIL, f"permanent error (exit code {exit_code})")
    if failures > retries:
        return Decision(NextStep.FAIL, f"exit code {exit_code}, and no retries are left (retries: {retries})")
    return Decision(NextStep.RETRY, f"transient error (exit code {exit_code})", _delay(failures))


def after_service_end(exit_code: int, was_ready: bool, failures: int, retries: int) -> Decision:
    """Decide what to do after a reward service has exited while a stage needs it.

    As on Kubernetes, a service that has been ready is restarted after any exit code. A service that never became
    ready is not restarted after a permanent error. For the other arguments, see :func:`after_end`.
    """
    ended = f"the reward service exited with code {exit_code}{'' if was_ready else ' before it was ready'}"
    if not was_ready and exit_code != ExitCode.DONE and not is_retryable(exit_code):
        return Decision(NextStep.FAIL, f"{ended} (permanent error)")
    if failures > retries:
        return Decision(NextStep.FAIL, f"{ended}, and no retries are left (retries: {retries})")
    return Decision(NextStep.RETRY, ended, _delay(failures))


def _delay(failures: int) -> float:
    return min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** (failures - 1))


def dependencies(stage: StageSpec, stages: Sequence[StageSpec]) -> frozenset[str]:
    """Return the names of the stages whose outputs are inputs of ``stage`` or of its reward service."""
    references = [parse_reference(text) for text in stage.inputs.values()]
    found = {reference.stage for reference in references if reference.scheme is Scheme.STAGE}
    service = service_of(stage, stages)
    return frozenset(found) | (dependencies(service, stages) if service else frozenset())


def service_of(stage: StageSpec, stages: Sequence[StageSpec]) -> StageSpec | None:
    """Return the serve stage that ``stage`` uses for rewards; None if ``stage.reward`` is unset or contains addresses."""
    return next((other for other in stages if other.name == stage.reward), None)


def startable(stages: Sequence[StageSpec], done: Set[str]) -> list[StageSpec]:
    """Return the stages that are not done and whose inputs are available, in the order of the run file.

    Serve stages are not included, because a serve stage is started together with the first stage that uses it.

    >>> [stage.name for stage in startable(quickstart, {"curate"})]    # doctest: +SKIP
    ['sft']
    """
    return [
        stage
        for stage in stages
        if not KINDS[stage.kind].service and stage.name not in done and dependencies(stage, stages) <= done
    ]


def services_wanted(stages: Sequence[StageSpec], done: Set[str]) -> frozenset[str]:
    """Return the names of the serve stages that an unfinished stage uses for rewards."""
    waiting = [stage for stage in stages if stage.name not in done]
    return frozenset(service.name for stage in waiting if (service := service_of(stage, stages)))


def overdue(started: float | None, now: float, limit: float | None) -> float | None:
    """Return how many seconds have passed since the deadline, which is ``limit`` seconds after ``started``.

    Returns None before the deadline, or if ``started`` or ``limit`` is None.
    """
    if started is None or limit is None or now - started <= limit:
        return None
    return now - started - limit
