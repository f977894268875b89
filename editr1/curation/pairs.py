"""Add principles to preference pairs, so that the winner and the loser are scored with the same questions."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from editr1.curation.errors import CurationError
from editr1.data.tables import read_table, write_table
from editr1.data.types import EditCase, PreferencePair, case_digest

_log = logging.getLogger(__name__)


def attach_principles(pairs: Path, cases: Path, out: Path) -> int:
    """Copy the preference pairs in ``pairs`` to the table ``out``, with the principles of their cases in ``cases``.

    Returns the number of pairs that were written. A pair is skipped if its case is missing from ``cases`` or has no
    principles there. The number of skipped pairs is logged as a warning.

    Raises:
        CurationError: The case of a pair has another instruction or image than the case with the same id in ``cases``.
    """
    cases_by_id = {
        case.case_id: (case.principles, case_digest(case.source.data, case.instruction))
        for case in read_table(cases, EditCase)
    }
    skipped = 0

    def attached() -> Iterator[PreferencePair]:
        nonlocal skipped
        for pair in read_table(pairs, PreferencePair):
            principles, digest = cases_by_id.get(pair.case.case_id, ((), ""))
            if not principles:
                skipped += 1
                continue
            if digest != case_digest(pair.case.source.data, pair.case.instruction):
                raise CurationError(
                    f"{pairs}: pair {pair.pair_id}: case {pair.case.case_id} has another instruction or image than in {cases}; "
                    "use tables from the same import"
                )
            yield pair.model_copy(update={"case": pair.case.model_copy(update={"principles": principles})})

    written = write_table(out, attached(), PreferencePair)
    if skipped:
        _log.warning("%s: skipped %d pairs whose cases have no principles in %s", pairs, skipped, cases)
    return written
