"""Create SFT rows from preference pairs by rejection sampling.

For each candidate of a pair, the verifier's trace with the highest GCPO reward is selected. Training on these rows is
the imitation baseline of GCPO: it uses the same pairs, the same number of sampled traces and the same rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from editr1.curation.select import canonical_trace
from editr1.data.types import (
    Candidate,
    PreferencePair,
    Quadruple,
    ScoreFailure,
    ScoreItem,
    ScoreOutcome,
    SftRow,
    Verdict,
    outcomes_fault,
    score_item,
)
from editr1.verifier.gcpo_rewards import pair_rewards

Scorer = Callable[[Sequence[ScoreItem]], list[ScoreOutcome]]
"""Function that scores each item with several traces and returns the outcomes in the order of the items."""


def preferred_rows(
    pairs: Iterable[PreferencePair],
    scorer: Scorer,
    *,
    batch: int = 16,
    on_batch: Callable[[int], None] = lambda _n: None,
) -> Iterator[SftRow]:
    """Yield up to two rows per pair: one for the winner and one for the loser (arXiv 2604.27505, section 3.2).

    A row contains the candidate's trace with the highest reward (the first such trace if there are several). A
    candidate yields no row if none of its traces has a positive reward, that is, if no comparison with a trace of the
    other candidate is correct. Pairs labelled "same" are skipped. After each batch of ``batch`` pairs, ``on_batch``
    is called with the number of pairs in the batch.
    """
    waiting: list[PreferencePair] = []
    for pair in pairs:
        if pair.label == "winner":
            waiting.append(pair)
        if len(waiting) == batch:
            yield from _selected_rows(waiting, scorer)
            on_batch(len(waiting))
            waiting = []
    if waiting:
        yield from _selected_rows(waiting, scorer)
        on_batch(len(waiting))


def _selected_rows(pairs: Sequence[PreferencePair], scorer: Scorer) -> Iterator[SftRow]:
    items = [score_item(pair.case, side) for pair in pairs for side in (pair.winner, pair.loser)]
    outcomes = scorer(items)
    if fault := outcomes_fault(items, outcomes):
        raise ValueError(f"the scorer did not return the outcomes of the pairs: {fault}")
    for pair, won, lost in zip(pairs, outcomes[0::2], outcomes[1::2], strict=True):
        winner, loser = _verdicts(won), _verdicts(lost)
        rewards = pair_rewards([v.score for v in winner], [v.score for v in loser])
        for side, verdicts, earned in ((pair.winner, winner, rewards.winner), (pair.loser, loser, rewards.loser)):
            row = _row(pair, side, verdicts, earned)
            if row is not None:
                yield row


def _row(pair: PreferencePair, side: Candidate, verdicts: Sequence[Verdict], earned: Sequence[float]) -> SftRow | None:
    if not earned or max(earned) <= 0:
        return None
    best = verdicts[max(range(len(earned)), key=earned.__getitem__)]
    try:
        trace = canonical_trace(best, pair.case.principles)
    except ValueError:
        return None
    return SftRow(quadruple=Quadruple(case=pair.case, candidate=side), trace=trace, member="own")


def _verdicts(outcome: ScoreOutcome) -> tuple[Verdict, ...]:
    return () if isinstance(outcome, ScoreFailure) else outcome.verdicts
