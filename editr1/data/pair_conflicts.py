"""Find preference pairs that must not be used: pairs of equal images, and pairs that contradict each other.

Images are compared by their SHA-256, and cases by their source image and instruction. Names and ids do not matter.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

from editr1.data.types import PreferencePair, case_digest

_CONFLICT: Final = b"conflict"


class PairFault(StrEnum):
    """Why a pair is not used. The values are the keys under which such pairs are counted."""

    EQUAL_IMAGES = "equal_images"
    CONTRADICTING = "contradicting"

    @property
    def rule(self) -> str:
        """Return the reason as a sentence for a message."""
        return _RULES[self]


_RULES: Final = {
    PairFault.EQUAL_IMAGES: "the two edited images are equal (same SHA-256), so neither can be better",
    PairFault.CONTRADICTING: "the same two edited images of the same case have another preference elsewhere in the table",
}


class PairConflicts:
    """The preferences that a table states about each two images of a case.

    First, add every pair of the table. Then :meth:`fault` tells which pairs must not be used. All pairs that contradict
    each other are refused, because the table does not say which of them is right. One pair that is stated several times
    with the same preference is not a contradiction. About 200 bytes of memory are used per pair of images.
    """

    def __init__(self) -> None:
        self._outcomes: dict[bytes, bytes] = {}

    def add(self, case: str, winner: str, loser: str, label: str) -> None:
        """Add a pair. ``case`` is a digest of its source image and instruction; ``winner`` and ``loser`` are digests."""
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
        """Add a row of a table of pairs."""
        self.add(*_digests(pair), pair.label)

    def fault_of(self, pair: PreferencePair) -> PairFault | None:
        """Return the reason why a row of a table of pairs must not be used, or None if it may be used."""
        return self.fault(*_digests(pair))


def _digests(pair: PreferencePair) -> tuple[str, str, str]:
    case = case_digest(pair.case.source.data, pair.case.instruction)
    return case, pair.winner.image.sha256, pair.loser.image.sha256


def _key(case: str, winner: str, loser: str) -> bytes:
    return hashlib.sha256("/".join([case, *sorted((winner, loser))]).encode()).digest()[:16]


def _outcome(winner: str, label: str) -> bytes:
    return b"same" if label == "same" else bytes.fromhex(winner)[:16]
