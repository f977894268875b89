"""What to do next with a stage: a pure function of what is known, shared by every backend."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from editr1.runs.exit_codes import worth_a_retry


class Action(StrEnum):
    """The next step for a stage."""

    SKIP = "skip"
    START = "start"
    RETRY = "retry"
    FINISH = "finish"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """An action, after ``delay`` seconds, and why in words."""

    action: Action
    reason: str = ""
    delay: float = 0.0


def before_start(has_result: bool) -> Decision:
    """Whether a stage whose inputs stand must run at all."""
    if has_result:
        return Decision(Action.SKIP, "already done for the same inputs, settings and seed")
    return Decision(Action.START)


def after_end(exit_code: int, has_result: bool, failures: int, retries: int) -> Decision:
    """What follows the end of an attempt.

    ``failures`` counts the attempts of this drive that ended badly, this one included; backoff doubles from 1 s to 60 s.
    """
    if exit_code == 0:
        if has_result:
            return Decision(Action.FINISH)
        return Decision(Action.FAIL, "the process ended with 0 but committed no result")
    if not worth_a_retry(exit_code):
        return Decision(Action.FAIL, f"exit code {exit_code} is permanent")
    if failures > retries:
        return Decision(Action.FAIL, f"exit code {exit_code}, and {retries} retries are used up")
    return Decision(Action.RETRY, f"exit code {exit_code} is worth a retry", min(60.0, 2.0 ** (failures - 1)))
