"""Evaluate a verifier on preference pairs, and compare two verifiers.

The metrics are the pairwise accuracy and the accuracy of the verifier's answers to individual principles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from editr1.data.errors import DataError
from editr1.data.images import decode_image
from editr1.data.types import Category, PreferencePair, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.evaluation.metrics import (
    DEFAULT,
    Bootstrap,
    Estimate,
    PairAccuracy,
    pair_accuracy,
    pair_credit,
    paired_difference,
    ratio_estimate,
)
from editr1.evaluation.report.model import VerifierGain, VerifierMetrics
from editr1.evaluation.resampling import case_groups
from editr1.evaluation.scoring import GroundTruth, Scorer, failures, first_failure, score_in_batches, score_or_none


@dataclass(frozen=True)
class PairScores:
    """One verifier's scores for the decided pairs, in which people preferred one of the two edits.

    Attributes:
        pairs: The decided pairs.
        winners: For each pair, the score of the preferred edit, or the reason why scoring failed.
        losers: For each pair, the score of the other edit, or the reason why scoring failed.
        same: Number of pairs that were excluded because people had no preference.
        num_traces: Number of traces that were requested from the verifier per edit.
    """

    pairs: tuple[PreferencePair, ...]
    winners: tuple[ScoreOutcome, ...]
    losers: tuple[ScoreOutcome, ...]
    same: int = 0
    num_traces: int = 1

    @cached_property
    def groups(self) -> list[str]:
        """The bootstrap group of each pair: its source image, or its case if all pairs have the same source image."""
        return case_groups(pair.case for pair in self.pairs)

    @property
    def failed_pairs(self) -> int:
        """Number of pairs in which at least one edit has no score."""
        sides = zip(self.winners, self.losers, strict=True)
        return sum(score_or_none(w) is None or score_or_none(lo) is None for w, lo in sides)

    def accuracy(self, bootstrap: Bootstrap = DEFAULT) -> PairAccuracy:
        """Return the pairwise accuracy, both without pairs that have a failed score and with these pairs counted as wrong.

        The bootstrap resamples the pairs of a source image together (see :attr:`groups`).

        Raises:
            ValueError: No pair has scores of both edits.
        """
        winners, losers = ([score_or_none(o) for o in outcomes] for outcomes in (self.winners, self.losers))
        found = pair_accuracy(winners, losers, bootstrap=bootstrap, groups=self.groups)
        return found.model_copy(update={"same": self.same})

    def parsed(self, bootstrap: Bootstrap = DEFAULT) -> Estimate | None:
        """Return the fraction of the verifier's traces that could be parsed, or None if there is no trace.

        The bootstrap resamples the traces of an edit, and the edits of a source image, together.
        """
        parsed: list[float] = []
        total: list[float] = []
        groups: list[str] = []
        for outcomes in (self.winners, self.losers):
            for group, outcome in zip(self.groups, outcomes, strict=True):
                if isinstance(outcome, ScoreFailure):
                    counts = (outcome.num_parsed, self.num_traces if outcome.cause == "unparsed" else 0)
                else:
                    counts = (len(outcome.verdicts), len(outcome.verdicts) + len(outcome.unparsed))
                if counts[1]:
                    parsed.append(float(counts[0]))
                    total.append(float(counts[1]))
                    groups.append(group)
        return ratio_estimate(parsed, total, bootstrap, groups) if total else None


def score_pairs(
    pairs: Iterable[PreferencePair],
    scorer: Scorer,
    *,
    num_traces: int = 1,
    batch_size: int = 64,
    max_failed_fraction: float = 1.0,
    on_batch: Callable[[int], None] = lambda _n: None,
) -> PairScores:
    """Score both edits of every pair in which people preferred one edit. Pairs labelled "same" are not scored.

    ``num_traces`` is the number of traces that the scorer requests per edit. The other keyword arguments are passed to
    :func:`editr1.evaluation.scoring.score_in_batches`.

    Raises:
        DataError: The case of a pair has no principles. Raised before anything is scored.
    """
    all_pairs = list(pairs)
    decided = tuple(pair for pair in all_pairs if pair.label != "same")
    for pair in decided:
        if not pair.case.principles:
            raise DataError(
                f"pair {pair.pair_id}: its case {pair.case.case_id} has no principles; add at least one for the verifier"
            )
    items = (_item(pair, side) for pair in decided for side in ("winner", "loser"))
    outcomes = score_in_batches(
        items, scorer, batch_size=batch_size, max_failed_fraction=max_failed_fraction, on_batch=on_batch
    )
    return PairScores(decided, tuple(outcomes[0::2]), tuple(outcomes[1::2]), len(all_pairs) - len(decided), num_traces)


def compare_verifiers(after: PairScores, before: PairScores, bootstrap: Bootstrap = DEFAULT) -> VerifierGain:
    """Return the differences between the metrics of two verifiers: ``after`` minus ``before``.

    A pair is used only if both verifiers scored both of its edits.

    Raises:
        ValueError: The two verifiers did not score the same pairs in the same order, or there is no pair in which both
            verifiers scored both edits.
    """
    if [p.pair_id for p in after.pairs] != [p.pair_id for p in before.pairs]:
        raise ValueError(
            "after and before must have the same pairs in the same order; score the same pairs with both verifiers"
        )
    sides = [
        [score_or_none(o) for o in outcomes]
        for outcomes in (after.winners, after.losers, before.winners, before.losers)
    ]
    both = zip(zip(*sides, strict=True), after.groups, strict=True)
    rows, groups = zip(*found, strict=True) if (found := [item for item in both if None not in item[0]]) else ((), ())
    if not rows:
        raise ValueError("there is no pair in which both verifiers scored both edits; check why scoring failed")
    after_w, after_l, before_w, before_l = (
        [score for score in column if score is not None] for column in zip(*rows, strict=True)
    )

    def difference(kind: Literal["strict", "half_credit", "ties", "inverted"]) -> Estimate:
        first, second = pair_credit(after_w, after_l, kind), pair_credit(before_w, before_l, kind)
        return paired_difference(first, second, bootstrap, groups)

    return VerifierGain(
        half_credit=difference("half_credit"),
        strict=difference("strict"),
        ties=difference("ties"),
        inverted=difference("inverted"),
    )


def verdict_accuracy(
    scores: PairScores, truth: GroundTruth, bootstrap: Bootstrap = DEFAULT
) -> dict[Category, Estimate]:
    """Return the fraction of the verifier's yes/no answers that agree with the ground truth, by category of principle.

    The answers of all parsed traces are used. The bootstrap resamples whole source images, because the answers about
    one edit, and about the edits of one source image, are correlated. ``n`` of an estimate is the number of answers.
    Cases whose principles have no ground-truth answers, such as cases with holistic questions, are excluded.
    """
    correct: dict[Category, list[float]] = defaultdict(list)
    answered: dict[Category, list[float]] = defaultdict(list)
    groups: dict[Category, list[str]] = defaultdict(list)
    for side, outcomes in (("winner", scores.winners), ("loser", scores.losers)):
        for pair, group, outcome in zip(scores.pairs, scores.groups, outcomes, strict=True):
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
                    correct[category].append(float(agreed))
                    answered[category].append(float(len(places) * len(outcome.verdicts)))
                    groups[category].append(group)
    return {
        category: ratio_estimate(correct[category], answered[category], bootstrap, groups[category])
        for category in Category
        if answered[category]
    }


def verifier_metrics(
    name: str,
    role: Literal["sft", "rl", "other"],
    scores: PairScores,
    truth: GroundTruth | None = None,
    bootstrap: Bootstrap = DEFAULT,
) -> VerifierMetrics:
    """Return the metrics of one verifier for the report. The accuracy is None if no pair has scores of both edits."""
    num_pairs, failed_pairs = len(scores.pairs), scores.failed_pairs
    outcomes = (*scores.winners, *scores.losers)
    return VerifierMetrics(
        name=name,
        role=role,
        accuracy=scores.accuracy(bootstrap) if failed_pairs < num_pairs else None,
        num_pairs=num_pairs,
        failed_pairs=failed_pairs,
        num_edits=2 * num_pairs,
        failures=failures(outcomes),
        first_failure=first_failure(outcomes),
        verdicts=verdict_accuracy(scores, truth, bootstrap) if truth else {},
        parsed=scores.parsed(bootstrap),
    )


def _item(pair: PreferencePair, side: str) -> ScoreItem:
    candidate = pair.winner if side == "winner" else pair.loser
    case = pair.case
    return ScoreItem(
        source=case.source, edited=candidate.image, instruction=case.instruction, principles=case.principles
    )


def first_decided_pairs(pairs: Sequence[PreferencePair], n: int) -> list[PreferencePair]:
    """Return the first pairs, up to and including the ``n``-th decided pair.

    A pair is decided if people preferred one edit. Pairs labelled "same" in between are included, but not counted.
    """
    found: list[PreferencePair] = []
    decided = 0
    for pair in pairs:
        if decided == n:
            break
        found.append(pair)
        decided += pair.label != "same"
    return found
