"""Preference pairs and the principles of their cases: winner and loser are judged by the same questions."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

from editr1.curation.errors import CurationError
from editr1.data.tables import read_table, write_table
from editr1.data.types import EditCase, PreferencePair

_log = logging.getLogger(__name__)


def attach_principles(pairs: Path, cases: Path, out: Path) -> int:
    """Write ``pairs`` (table of PreferencePair) to ``out`` with the principles that ``cases`` hold for their cases.

    Returns the rows written; pairs of a case that ``cases`` lacks are left out, with a warning that counts them. Raises
    :class:`CurationError` when a case of the same id has another instruction or picture.
    """
    known = {case.case_id: (case.principles, identity(case)) for case in read_table(cases, EditCase)}
    missing = 0

    def attached() -> Iterator[PreferencePair]:
        nonlocal missing
        for pair in read_table(pairs, PreferencePair):
            found = known.get(pair.case.case_id)
            if found is None or not found[0]:
                missing += 1
                continue
            if found[1] != identity(pair.case):
                raise CurationError(
                    f"{pairs}: pair {pair.pair_id}: case {pair.case.case_id} has another instruction or picture in {cases}"
                )
            yield pair.model_copy(update={"case": pair.case.model_copy(update={"principles": found[0]})})

    written = write_table(out, attached(), PreferencePair)
    if missing:
        _log.warning("%s: %d pairs left out: their cases have no principles in %s", pairs, missing, cases)
    return written


def identity(case: EditCase) -> str:
    """Digest of what makes two cases of one id the same: picture and instruction."""
    return hashlib.sha256(case.source.data + case.instruction.encode()).hexdigest()
