"""A verifier on preference pairs: both sides scored, then accuracy, comparison with another verifier, and verdicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from editr1.data.errors import DataError
from editr1.data.images import decode_image
from editr1.data.types import Category, PreferencePair, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.evaluation.metrics import (
    DEFAULT,
    Bootstrap,
    Estimate,
    PairAccuracy,
    mean_estimate,
    pair_accuracy,
    pair_credit,
    paired_difference,
    ratio_estimate,
)
from editr1.evaluation.report.model import VerifierFigures, VerifierGain
from editr1.evaluation.scoring import Scorer, Truth, score_in_batches, value


@dataclass(frozen=True)
class PairScores:
    """The decided pairs with the outcome of each side, for which ``traces`` were asked.

    ``same`` counts the pairs left out because people saw no winner.
    """

    pairs: tuple[PreferencePair, ...]
    winners: tuple[ScoreOutcome, ...]
    losers: tuple[ScoreOutcome, ...]
    same: int = 0
    traces: int = 1

    def accuracy(self, bootstrap: Bootstrap = DEFAULT) -> PairAccuracy:
        """Pair accuracy; pairs with a failed side are counted and left out. ValueError when no pair is left."""
        found = pair_accuracy([value(o) for o in self.winners], [value(o) for o in self.losers], bootstrap=bootstrap)
        return found.model_copy(update={"same": self.same})

    def parsed(self, bootstrap: Bootstrap = DEFAULT) -> Estimate | None:
        """Share of traces that the strict parser took; None when no trace was written."""
        took: list[float] = []
        for outcome in (*self.winners, *self.losers):
            if isinstance(outcome, ScoreFailure):
                took += [0.0] * self.traces if outcome.cause == "unparsed" else []
            else:
                took += [1.0] * len(outcome.verdicts) + [0.0] * len(outcome.unparsed)
        return mean_estimate(took, bootstrap) if took else None


def score_pairs(
    pairs: Iterable[PreferencePair],
    scorer: Scorer,
    *,
    traces: int = 1,
    batch: int = 64,
    max_failed_fraction: float = 1.0,
    on_batch: Callable[[int], None] = lambda _n: None,
) -> PairScores:
    """Score winner and loser of every decided pair, side by side in the same batches.

    A pair whose case has no principles is a DataError before anything is scored. "same" pairs are not scored.
    """
    everything = list(pairs)
    decided = tuple(pair for pair in everything if pair.label != "same")
    for pair in decided:
        if not pair.case.principles:
            raise DataError(f"pair {pair.pair_id}: its case {pair.case.case_id} has no principles to judge by")
    items = (_item(pair, side) for pair in decided for side in ("winner", "loser"))
    outcomes = score_in_batches(items, scorer, batch=batch, max_failed_fraction=max_failed_fraction, on_batch=on_batch)
    return PairScores(decided, tuple(outcomes[0::2]), tuple(outcomes[1::2]), len(everything) - len(decided), traces)


def compare(after: PairScores, before: PairScores, bootstrap: Bootstrap = DEFAULT) -> VerifierGain:
    """Figures of ``after`` minus those of ``before`` over the pairs that both scored on both sides.

    ValueError when the two did not judge the same pairs in the same order, or share no scored pair.
    """
    if [p.pair_id for p in after.pairs] != [p.pair_id for p in before.pairs]:
        raise ValueError("the two verifiers did not judge the same pairs in the same order")
    sides = [[value(o) for o in outcomes] for outcomes in (after.winners, after.losers, before.winners, before.losers)]
    rows = [row for row in zip(*sides, strict=True) if None not in row]
    if not rows:
        raise ValueError("no pair has a score on both sides from both verifiers")
    after_w, after_l, before_w, before_l = (
        [score for score in column if score is not None] for column in zip(*rows, strict=True)
    )

    def difference(kind: Literal["strict", "half_credit", "ties", "inverted"]) -> Estimate:
        first, second = pair_credit(after_w, after_l, kind), pair_credit(before_w, before_l, kind)
        return paired_difference(first, second, bootstrap)

    return VerifierGain(
        half_credit=difference("half_credit"),
        strict=difference("strict"),
        ties=difference("ties"),
        inverted=difference("inverted"),
    )


def verdict_accuracy(scores: PairScores, truth: Truth, bootstrap: Bootstrap = DEFAULT) -> dict[Category, Estimate]:
    """Share of the verifier's yes/no answers that the truth confirms, by category of principle.

    Every parsed trace counts. Edits are resampled whole, since the answers on one edit hang together; ``n`` counts
    answers. A case with other principles than the truth answers (holistic ones, say) has none to compare, and is left out.
    """
    right: dict[Category, list[float]] = defaultdict(list)
    asked: dict[Category, list[float]] = defaultdict(list)
    for side, outcomes in (("winner", scores.winners), ("loser", scores.losers)):
        for pair, outcome in zip(scores.pairs, outcomes, strict=True):
            if isinstance(outcome, ScoreFailure) or not outcome.verdicts:
                continue
            candidate = pair.winner if side == "winner" else pair.loser
            known = truth(pair.case, decode_image(candidate.image.data)).verdicts
            principles = pair.case.principles
            if len(known) != len(principles):
                continue
            for category in Category:
                places = [i for i, p in enumerate(principles) if p.category == category]
                if places:
                    agreed = sum(v.scores[i] == known[i] for v in outcome.verdicts for i in places)
                    right[category].append(float(agreed))
                    asked[category].append(float(len(places) * len(outcome.verdicts)))
    return {
        category: ratio_estimate(right[category], asked[category], bootstrap)
        for category in Category
        if asked[category]
    }


def verifier_figures(
    name: str,
    role: Literal["sft", "rl", "other"],
    scores: PairScores,
    truth: Truth | None = None,
    bootstrap: Bootstrap = DEFAULT,
) -> VerifierFigures:
    """All figures of one verifier for the report; accuracy is None when no pair has two scores."""
    scored = any(
        value(w) is not None and value(lo) is not None for w, lo in zip(scores.winners, scores.losers, strict=True)
    )
    return VerifierFigures(
        name=name,
        role=role,
        accuracy=scores.accuracy(bootstrap) if scored else None,
        verdicts=verdict_accuracy(scores, truth, bootstrap) if truth else {},
        parsed=scores.parsed(bootstrap),
    )


def _item(pair: PreferencePair, side: str) -> ScoreItem:
    candidate = pair.winner if side == "winner" else pair.loser
    case = pair.case
    return ScoreItem(
        source=case.source, edited=candidate.image, instruction=case.instruction, principles=case.principles
    )


def first_pairs(pairs: Sequence[PreferencePair], n: int) -> list[PreferencePair]:
    """The first ``n`` decided pairs, with the "same" pairs that lie between them."""
    found: list[PreferencePair] = []
    decided = 0
    for pair in pairs:
        if decided == n:
            break
        found.append(pair)
        decided += pair.label != "same"
    return found
