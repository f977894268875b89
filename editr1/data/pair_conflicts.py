"""Find preference pairs that must not be used: pairs of identical images, and pairs that contradict each other.

Images are compared by SHA-256, and cases by source image and instruction. Names and ids are ignored.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

from editr1.data.types import PreferencePair, case_digest

_CONFLICT: Final = b"conflict"


class PairFault(StrEnum):
    """Reason why a preference pair is not used.

    The values are the keys under which such pairs are counted in reports.
    """

    EQUAL_IMAGES = "equal_images"
    CONTRADICTING = "contradicting"

    @property
    def rule(self) -> str:
        """Return the reason as text for an error message."""
        return _RULES[self]


_RULES: Final = {
    PairFault.EQUAL_IMAGES: "the two edited images are identical (same SHA-256), so neither can be better",
    PairFault.CONTRADICTING: "another row of the table states a different preference for the same two edited images of the same case",
}


class PairConflicts:
    """The preferences of a table, grouped by case and by pair of images.

    Add every pair of the table first. Afterwards, :meth:`fault` returns whether a pair must not be used. All pairs
    that contradict each other are rejected, because the table does not show which of them is correct. Repetitions of
    a pair with the same preference are no contradiction. Memory use is about 200 bytes per pair of images.
    """

    def __init__(self) -> None:
        self._outcomes: dict[bytes, bytes] = {}

    def add(self, case: str, winner: str, loser: str, label: str) -> None:
        """Add a pair.

        ``case`` is the digest of the case's source image and instruction; ``winner`` and ``loser`` are digests.
        """
        key = _key(case, winner, loser)
        outcome = _outcome(winner, label)
        if self._outcomes.setdefault(key, outcome) != outcome:
            self._outcomes[key] = _CONFLICT

    def fault(self, case: str, winner: str, loser: str) -> PairFault | None:
        """Return the reason why this pair must not be used, or None if it may be used."""
        if winner == loser:
            return PairFault.EQUAL_IMAGES
        if self._outcomes.get(_key(case, winner, loser)) == _CONFLICT:
            return PairFault.CONTRADICTING
        return None

    def add_pair(self, pair: PreferencePair) -> None:
        """Add a row of a preference table."""
        self.add(*_digests(pair), pair.label)

    def fault_of(self, pair: PreferencePair) -> PairFault | None:
        """Return the reason why a row of a preference table must not be used, or None if it may be used."""
        return self.fault(*_digests(pair))


def _digests(pair: PreferencePair) -> tuple[str, str, str]:
    case = case_digest(pair.case.source.data, pair.case.instruction)
    return case, pair.winner.image.sha256, pair.loser.image.sha256


def _key(case: str, winner: str, loser: str) -> bytes:
    return hashlib.sha256("/".join([case, *sorted((winner, loser))]).encode()).digest()[:16]


def _outcome(winner: str, label: str) -> bytes:
    return b"same" if label == "same" else bytes.fromhex(winner)[:16]
