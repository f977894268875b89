"""SFT rows from preference pairs: of a verifier's own traces the one that judges each side best (rejection sampling).

What stands against GCPO: the same pairs, the same number of sampled traces, the same comparison, learnt by imitation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from editr1.curation.select import canonical
from editr1.data.types import (
    Candidate,
    PreferencePair,
    Quadruple,
    ScoreFailure,
    ScoreItem,
    ScoreOutcome,
    SftRow,
    Verdict,
    score_item,
)
from editr1.verifier.gcpo_rewards import pair_rewards


def preferred_rows(
    pairs: Iterable[PreferencePair],
    scorer: Callable[[Sequence[ScoreItem]], list[ScoreOutcome]],
    *,
    batch: int = 16,
    on_batch: Callable[[int], None] = lambda _n: None,
) -> Iterator[SftRow]:
    """A row for each side of a decided pair that has a trace with a reward above 0 (arXiv 2604.27505, section 3.2).

    ``scorer`` samples several traces an item. Of the traces with the highest reward the first is taken; a side none of
    whose traces beats one of the other side gives no row. ``batch`` pairs are scored at once, and ``on_batch`` is told.
    """
    waiting: list[PreferencePair] = []
    for pair in pairs:
        if pair.label == "winner":
            waiting.append(pair)
        if len(waiting) == batch:
            yield from _picked(waiting, scorer)
            on_batch(len(waiting))
            waiting = []
    if waiting:
        yield from _picked(waiting, scorer)
        on_batch(len(waiting))


def _picked(
    pairs: Sequence[PreferencePair], scorer: Callable[[Sequence[ScoreItem]], list[ScoreOutcome]]
) -> Iterator[SftRow]:
    outcomes = scorer([score_item(pair.case, side) for pair in pairs for side in (pair.winner, pair.loser)])
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
        trace = canonical(best, pair.case.principles)
    except ValueError:
        return None
    return SftRow(quadruple=Quadruple(case=pair.case, candidate=side), trace=trace, member="own")


def _verdicts(outcome: ScoreOutcome) -> tuple[Verdict, ...]:
    return () if isinstance(outcome, ScoreFailure) else outcome.verdicts
