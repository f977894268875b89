"""Item by item what a cell's evaluation measured, so that two cells are compared on the same pairs and cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from editr1.evaluation.items import EditItem, PairItem
from editr1.evaluation.metrics import pair_credit

Floats = npt.NDArray[np.float64]
Figure = Literal["half_credit", "strict", "ties", "inverted", "score", "follow", "keep", "quality", "hacked", "better"]
PAIR_FIGURES = ("half_credit", "strict", "ties", "inverted")
LIKED, BAD = 8.0, 5.0
"""An edit is hacked when its verifier gives at least LIKED and the truth at most BAD (8: nearly usable, 5: partly)."""


@dataclass(frozen=True)
class Evaluated:
    """The items of one cell's evaluation."""

    pairs: tuple[PairItem, ...] = ()
    edits: tuple[EditItem, ...] = ()


@dataclass(frozen=True)
class Measure:
    """A figure of a cell: of its verifier (input ``sft`` or ``rl``) on pairs, or of its editor on cases."""

    cell: str
    figure: Figure
    role: str = "rl"

    @property
    def of_pairs(self) -> bool:
        """Whether it is measured on pairs."""
        return self.figure in PAIR_FIGURES

    def values(self, evaluated: Evaluated) -> dict[str, float]:
        """The figure of each pair or case by its id; items that failed are left out."""
        if self.of_pairs:
            scored = [
                (item.pair_id, item.winner, item.loser)
                for item in evaluated.pairs
                if item.verifier == self.role and item.winner is not None and item.loser is not None
            ]
            if not scored:
                return {}
            credit = pair_credit([w for _, w, _ in scored], [lo for _, _, lo in scored], self.figure)  # type: ignore[arg-type]
            return dict(zip((name for name, _, _ in scored), credit.tolist(), strict=True))
        found = ((item.case_id, _of_edit(item, self.figure)) for item in evaluated.edits if item.editor == self.role)
        return {name: value for name, value in found if value is not None}


def differences(first: Mapping[str, float], second: Mapping[str, float] | None, figure: Figure) -> Floats:
    """``first - second`` over the ids in both, in the order of ``first``; ``first`` itself where there is no second.

    ``better`` gives the sign: 1 where the first is better, -1 where it is worse (GSB, paper section 4).
    """
    if second is None:
        return np.array(list(first.values()), dtype=np.float64)
    both = [name for name in first if name in second]
    found = np.array([first[name] - second[name] for name in both], dtype=np.float64)
    return np.sign(found) if figure == "better" else found


def _of_edit(item: EditItem, figure: Figure) -> float | None:
    if item.truth is None:
        return None
    if figure == "hacked":
        return None if item.score is None else float(item.score >= LIKED and item.truth.score <= BAD)
    return float(getattr(item.truth, "score" if figure == "better" else figure))
