"""Metrics of an experiment for each pair or case, so that two experiments can be compared on the same items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from editr1.evaluation.items import EditItem, PairItem
from editr1.evaluation.metrics import pair_credit
from editr1.evaluation.resampling import first_distinct

Floats = npt.NDArray[np.float64]
Metric = Literal["half_credit", "strict", "ties", "inverted", "score", "follow", "keep", "quality", "hacked", "better"]
PAIR_METRICS = ("half_credit", "strict", "ties", "inverted")
HACKED_MIN_SCORE = 8.0
"""Minimum verifier score of an edit that counts as reward hacking (8: nearly usable)."""
HACKED_MAX_TRUTH = 5.0
"""Maximum ground-truth score of an edit that counts as reward hacking (5: partly correct)."""


@dataclass(frozen=True)
class EvaluatedItems:
    """The scores of the pairs and edits in the evaluation of one experiment."""

    pairs: tuple[PairItem, ...] = ()
    edits: tuple[EditItem, ...] = ()


@dataclass(frozen=True)
class Measure:
    """A metric of one model in the evaluation of an experiment.

    ``role`` is the name of the model's input in the evaluate stage: "sft" or "rl" for a verifier, which is measured on
    preference pairs, and "before" or "after" (RL) for an editor, which is measured on edit cases.
    """

    experiment: str
    metric: Metric
    role: str = "rl"

    @property
    def of_pairs(self) -> bool:
        """Whether the metric is measured on pairs rather than on edits."""
        return self.metric in PAIR_METRICS

    def values(self, evaluated: EvaluatedItems) -> dict[str, float]:
        """Return the value of the metric by pair or case id. Items whose scoring failed are omitted."""
        if self.of_pairs:
            scored = [
                (item.pair_id, item.winner, item.loser)
                for item in evaluated.pairs
                if item.verifier == self.role and item.winner is not None and item.loser is not None
            ]
            if not scored:
                return {}
            credit = pair_credit([w for _, w, _ in scored], [lo for _, _, lo in scored], self.metric)  # type: ignore[arg-type]
            return dict(zip((name for name, _, _ in scored), credit.tolist(), strict=True))
        found = ((item.case_id, _of_edit(item, self.metric)) for item in evaluated.edits if item.editor == self.role)
        return {name: value for name, value in found if value is not None}

    def groups(self, evaluated: EvaluatedItems) -> dict[str, str]:
        """Return the bootstrap group of each pair or case id: its source image.

        The group is the case if all items have the same source image, and the id itself if the source images were not
        recorded.
        """
        if self.of_pairs:
            pairs = {item.pair_id: item for item in evaluated.pairs}
            names = first_distinct([p.source for p in pairs.values()], [p.case_id for p in pairs.values()], list(pairs))
            return dict(zip(pairs, names, strict=True))
        edits = {item.case_id: item.source for item in evaluated.edits}
        return dict(zip(edits, first_distinct(list(edits.values()), list(edits)), strict=True)) if edits else {}


def differences(first: Mapping[str, float], second: Mapping[str, float] | None, metric: Metric) -> Floats:
    """Return ``first - second`` for the ids that occur in both mappings, in the order of ``first``.

    If ``second`` is None, return the values of ``first``.

    For the metric "better" (GSB, paper section 4), return the sign: 1 if ``first`` is better, -1 if it is worse.
    """
    if second is None:
        return np.array(list(first.values()), dtype=np.float64)
    both = [name for name in first if name in second]
    found = np.array([first[name] - second[name] for name in both], dtype=np.float64)
    return np.sign(found) if metric == "better" else found


def _of_edit(item: EditItem, metric: Metric) -> float | None:
    if item.truth is None:
        return None
    if metric == "hacked":
        return (
            None
            if item.score is None
            else float(item.score >= HACKED_MIN_SCORE and item.truth.score <= HACKED_MAX_TRUTH)
        )
    return float(getattr(item.truth, "score" if metric == "better" else metric))
