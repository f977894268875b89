"""Step 6 of curation: select one trace per quadruple as the target of SFT (paper section 3.1).

All functions are deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from editr1.config.curate import HolisticConfig
from editr1.config.loader import ConfigError
from editr1.curation.answers import read_ratings
from editr1.data.rules import content_fault, question_fault, trace_fault
from editr1.data.types import Category, Principle, Unparsed, Verdict
from editr1.llm.answers import UnreadableAnswer
from editr1.verifier.trace import format_trace

T = TypeVar("T")


def agreement(scores: Sequence[int], gold: Sequence[int]) -> float:
    """Return the fraction of principles for which the verdicts in ``scores`` match the gold verdicts.

    Both sequences contain 0 or 1 per principle, in the same order.

    Raises:
        ValueError: The sequences are empty or differ in length.
    """
    if len(scores) != len(gold) or not gold:
        raise ValueError(
            f"{len(scores)} verdicts cannot be compared with {len(gold)} gold verdicts; pass one verdict and "
            "one gold verdict per principle"
        )
    return sum(score == bit for score, bit in zip(scores, gold, strict=True)) / len(gold)


def best_trace(verdicts: Sequence[Verdict | Unparsed], gold: Sequence[int]) -> int | None:
    """Return the index of the trace with the highest agreement with ``gold``, or None if no trace was parsed.

    If several traces have the highest agreement, the one with the highest stated average is selected. Any remaining
    tie is broken by the highest score, and then by the order of the traces, which :func:`shuffled` makes random.
    """
    ranked = [
        (agreement(verdict.scores, gold), verdict.average, verdict.score, -index)
        for index, verdict in enumerate(verdicts)
        if isinstance(verdict, Verdict)
    ]
    return -max(ranked)[3] if ranked else None


def shuffled(traces: Sequence[T], rng: np.random.Generator) -> list[T]:
    """Return the traces in random order, so that no pool member is favoured where traces are equally good."""
    return [traces[int(index)] for index in rng.permutation(len(traces))]


def random_trace(verdicts: Sequence[Verdict | Unparsed], rng: np.random.Generator) -> int | None:
    """Return the index of a random parsed trace, or None if no trace was parsed. Used for the setting ``variant: T``."""
    parsed = [index for index, verdict in enumerate(verdicts) if isinstance(verdict, Verdict)]
    return parsed[int(rng.integers(len(parsed)))] if parsed else None


def canonical_trace(verdict: Verdict, principles: Sequence[Principle]) -> str:
    """Return the text of a parsed trace in the canonical form. All traces for training have this form.

    Raises:
        ValueError: The result would not be a valid trace, or it violates a rule of :mod:`editr1.data.rules`.
    """
    trace = format_trace(verdict.reasoning, principles, verdict.scores, verdict.score, verdict.average)
    if fault := trace_fault(trace):
        raise ValueError(fault)
    return trace


def verdict_trace(principles: Sequence[Principle], gold: Sequence[int]) -> str:
    """Return a trace that contains the gold verdicts and no reasoning, for ``variant: V``. Its score is 10 times the mean verdict."""
    return format_trace("", principles, gold, 10 * sum(gold) / len(gold))


def holistic_principles(config: HolisticConfig) -> tuple[Principle, ...]:
    """Return the two fixed principles of the holistic variant.

    They give holistic traces the same form as other traces.

    Raises:
        ConfigError: A question in the settings violates a rule of :mod:`editr1.data.rules`.
    """
    for name in ("follow", "keep"):
        if fault := question_fault(getattr(config, name)):
            raise ConfigError(f"holistic.{name}: {getattr(config, name)!r:.80}: {fault}")
    return (
        Principle(question=config.follow, category=Category.FOLLOW),
        Principle(question=config.keep, category=Category.KEEP),
    )


def holistic_verdict(text: str, config: HolisticConfig) -> Verdict | Unparsed:
    """Parse an answer with two ratings (holistic variant).

    The score is the lower rating, as in VIEScore. Each rating also becomes a verdict, which is 1 if the rating is at least
    ``config.threshold``.
    """
    try:
        reasoning, *ratings = read_ratings(text)
    except UnreadableAnswer as error:
        return Unparsed(reason=str(error))
    if fault := content_fault(reasoning):
        return Unparsed(reason=fault)
    bits = tuple(int(rating >= config.threshold) for rating in ratings)
    return Verdict(scores=bits, average=sum(bits) / len(bits), score=min(ratings), reasoning=reasoning)
