"""Step 6: one trace a quadruple (paper section 3.1). Everything here is deterministic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from editr1.config.curate import HolisticConfig
from editr1.curation.answers import Unreadable, read_marks
from editr1.data.types import Category, Principle, Unparsed, Verdict
from editr1.verifier.trace import format_trace


def agreement(scores: Sequence[int], gold: Sequence[int]) -> float:
    """Share in [0, 1] of the principles on which ``scores`` and ``gold`` (0/1, aligned) say the same."""
    if len(scores) != len(gold) or not gold:
        raise ValueError(f"{len(scores)} verdicts cannot be compared with {len(gold)} gold verdicts")
    return sum(score == bit for score, bit in zip(scores, gold, strict=True)) / len(gold)


def best_trace(verdicts: Sequence[Verdict | Unparsed], gold: Sequence[int]) -> int | None:
    """Index of the trace with the highest agreement with gold; None when none was parsed.

    Ties go to the higher average (as written), then to the higher score, then to the lower index.
    """
    ranked = [
        (agreement(verdict.scores, gold), verdict.average, verdict.score, -index)
        for index, verdict in enumerate(verdicts)
        if isinstance(verdict, Verdict)
    ]
    return -max(ranked)[3] if ranked else None


def random_trace(verdicts: Sequence[Verdict | Unparsed], rng: np.random.Generator) -> int | None:
    """Index of a parsed trace at random (variant T); None when none was parsed."""
    parsed = [index for index, verdict in enumerate(verdicts) if isinstance(verdict, Verdict)]
    return parsed[int(rng.integers(len(parsed)))] if parsed else None


def canonical(verdict: Verdict, principles: Sequence[Principle]) -> str:
    """The canonical spelling of a parsed trace."""
    return format_trace(verdict.reasoning, principles, verdict.scores, verdict.score, verdict.average)


def verdict_trace(principles: Sequence[Principle], gold: Sequence[int]) -> str:
    """Variant V: the gold verdicts in the grammar of a trace, without reasoning; the score is 10 x their mean."""
    return format_trace("", principles, gold, 10 * sum(gold) / len(gold))


def holistic_principles(config: HolisticConfig) -> tuple[Principle, ...]:
    """The two questions that stand in every row of the holistic variant, so that its traces keep the grammar."""
    return (
        Principle(question=config.follow, category=Category.FOLLOW),
        Principle(question=config.keep, category=Category.KEEP),
    )


def holistic_verdict(text: str, config: HolisticConfig) -> Verdict | Unparsed:
    """Read a holistic answer: the score is the lower of both marks (VIEScore's rule), the bits are marks by threshold."""
    try:
        reasoning, *marks = read_marks(text)
    except Unreadable as error:
        return Unparsed(reason=str(error))
    bits = tuple(int(mark >= config.threshold) for mark in marks)
    return Verdict(scores=bits, average=sum(bits) / len(bits), score=min(marks), reasoning=reasoning)
