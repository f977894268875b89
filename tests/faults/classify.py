"""Decide from what was observed how a run survived a fault. Pure functions without access to disk or network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from editr1.errors import ExitCode

DOCUMENTED_CODES = frozenset({2, 3, 4, 5, 124, 129, 130, 137, 143})
"""Exit codes that tell a person what to do. 1 means that the error was unexpected."""
STOP_CODES = {"SIGTERM": (143, -15), "SIGINT": (130, 143, -2), "SIGKILL": (137, -9)}
"""Codes of a command that received this signal itself. A negative code is a signal number."""


class Outcome(StrEnum):
    """What a run made of a fault. The last four must not occur."""

    RIGHT = "right"
    RIGHT_AGAIN = "right after the same command"
    CLEAR_ERROR = "clear error with a true code"
    UNCLEAR_ERROR = "unclear error"
    HANG = "hang"
    WRONG_RESULT = "wrong result"
    LOST_WORK = "lost work"
    NOT_MET = "fault not met"
    """The run ended before the fault could be injected. Such a fault is not counted."""


BAD = (Outcome.UNCLEAR_ERROR, Outcome.HANG, Outcome.WRONG_RESULT, Outcome.LOST_WORK)


@dataclass(frozen=True)
class Attempt:
    """One call of the command. ``code`` is None if it did not end within its time limit."""

    code: int | None
    seconds: float
    output: str
    log: str = ""
    """The last lines of the log of the stage concerned."""


@dataclass(frozen=True)
class Evidence:
    """Everything that was observed when one fault was injected.

    Attributes:
        met: The fault was injected.
        persists: The fault is still present when the command is repeated, such as damage of a stored file.
        stopped_by: Signal that the command itself received; empty if it received none.
        attempts: The calls of the command: the first one, and one repetition if the first one failed.
        difference: How the outputs differ from those of an undisturbed run; empty if they do not. None if there are no outputs.
        counted_failures: Failed scores that the run counted and an undisturbed run does not have.
        lost_steps: Steps that were repeated after each restart, at most.
        allowed_steps: Steps that may be repeated after a restart.
        rerun: Stages that were complete before the fault, that the fault did not concern, and that ran again.
        left: Processes that were still running after the last command had ended.
        refused: The reward service answered with a status that says that a retry is useless, so that a permanent code is true.
        replaceable: The damaged file can be made again or an older one can be used, so that it must not block the run.
        names: Words of which an error message about a damaged file must contain at least one; empty if any message will do.
    """

    met: bool
    persists: bool
    attempts: tuple[Attempt, ...]
    stopped_by: str = ""
    difference: str | None = None
    counted_failures: int = 0
    lost_steps: int = 0
    allowed_steps: int = 0
    rerun: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    refused: bool = False
    replaceable: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The outcome, and the observation that decided it."""

    outcome: Outcome
    reason: str = ""


def classify(evidence: Evidence) -> Verdict:
    """Return the outcome of a fault. The worst observation decides."""
    if not evidence.met:
        return Verdict(Outcome.NOT_MET)
    last = evidence.attempts[-1]
    for number, attempt in enumerate(evidence.attempts, 1):
        if attempt.code is None:
            return Verdict(Outcome.HANG, f"call {number} did not end within {attempt.seconds:.0f} s")
    if last.code == 0 and evidence.difference and not evidence.counted_failures:
        return Verdict(Outcome.WRONG_RESULT, evidence.difference)
    if evidence.left:
        return Verdict(Outcome.HANG, f"processes outlived the run: {', '.join(evidence.left)}")
    ended_by_itself = evidence.attempts[1:] if evidence.stopped_by else evidence.attempts
    if problem := next((text for text in map(unclear, ended_by_itself) if text), ""):
        return Verdict(Outcome.UNCLEAR_ERROR, problem)
    if "Traceback (most recent call last)" in evidence.attempts[0].output:
        return Verdict(Outcome.UNCLEAR_ERROR, f"{evidence.stopped_by} to the command gave a traceback")
    return _succeeded(evidence) if last.code == 0 else _failed(evidence)


def _succeeded(evidence: Evidence) -> Verdict:
    if evidence.lost_steps > evidence.allowed_steps:
        return Verdict(
            Outcome.LOST_WORK, f"{evidence.lost_steps} steps were repeated, {evidence.allowed_steps} are allowed"
        )
    if evidence.rerun:
        return Verdict(Outcome.LOST_WORK, f"complete stages ran again: {', '.join(evidence.rerun)}")
    first = evidence.attempts[0]
    if first.code == 0:
        counted = f"{evidence.counted_failures} scores counted as failed" if evidence.counted_failures else ""
        return Verdict(Outcome.RIGHT, counted)
    if evidence.stopped_by:
        if first.code in STOP_CODES[evidence.stopped_by]:
            return Verdict(Outcome.RIGHT_AGAIN, f"stopped with {first.code}")
        return Verdict(Outcome.UNCLEAR_ERROR, f"{evidence.stopped_by} to the command gave code {first.code}")
    if evidence.refused and first.code in (ExitCode.REWARD_BUDGET, ExitCode.CONFIG):
        return Verdict(Outcome.CLEAR_ERROR, f"code {first.code}: {last_error(first)}")
    if first.code is not None and 0 < first.code < 128:
        return Verdict(
            Outcome.UNCLEAR_ERROR,
            f"code {first.code} says permanent, but the same command succeeded: {last_error(first)}",
        )
    return Verdict(Outcome.RIGHT_AGAIN, f"code {first.code}: {last_error(first)}")


def _failed(evidence: Evidence) -> Verdict:
    last = evidence.attempts[-1]
    said = last_error(last)
    if last.code is None or last.code < 0 or last.code >= 128:
        return Verdict(Outcome.UNCLEAR_ERROR, f"code {last.code} says retry, but the repetition failed, too: {said}")
    if not evidence.persists:
        return Verdict(
            Outcome.UNCLEAR_ERROR, f"the fault has passed, but the repetition failed with {last.code}: {said}"
        )
    if evidence.replaceable:
        return Verdict(Outcome.LOST_WORK, f"a file that can be made again blocks the run: code {last.code}: {said}")
    if evidence.names and not any(name in last.output for name in evidence.names):
        return Verdict(Outcome.UNCLEAR_ERROR, f"code {last.code}, but the message does not name the file: {said}")
    return Verdict(Outcome.CLEAR_ERROR, f"code {last.code}: {said}")


def unclear(attempt: Attempt) -> str:
    """Return why the end of a failed call is not clear to a person; empty if it is clear."""
    if attempt.code in (0, None):
        return ""
    if attempt.code is not None and attempt.code < 0:
        return f"a signal ({-attempt.code}) that nobody sent ended the command: {last_error(attempt)}"
    if "Traceback (most recent call last)" in attempt.output:
        return f"code {attempt.code} with a traceback: {last_error(attempt)}"
    if attempt.code not in DOCUMENTED_CODES:
        return f"code {attempt.code} is for unexpected errors: {last_error(attempt)}"
    said = last_error(attempt)
    if not said:
        return f"code {attempt.code} without any message"
    if re.search(r"\bINFO\b", said):
        return f"code {attempt.code} with an INFO line as its reason: {said}"
    return ""


def last_error(attempt: Attempt) -> str:
    """Return the last error line of a call, or its last line if none begins with "error:"."""
    lines = [line.strip() for line in attempt.output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or [""])[-1][:400]
