"""Add principles to preference pairs, so that the winner and the loser are scored with the same questions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from editr1.curation.errors import CurationError
from editr1.data.pair_conflicts import PairConflicts
from editr1.data.tables import read_table, write_table
from editr1.data.types import EditCase, PreferencePair, case_digest

_log = logging.getLogger(__name__)


def attach_principles(pairs: Path, cases: Path, out: Path, dropped: Counter[str] | None = None) -> int:
    """Copy the preference pairs in ``pairs`` to the table ``out``, with the principles of their cases in ``cases``.

    Returns the number of pairs that were written. Pairs are dropped, and added to the counter ``dropped``, for the
    reasons ``equal_images`` and ``contradicting`` (see :class:`PairFault`), and ``without_principles`` if ``cases``
    contains no principles for the case of the pair. Their number is logged as a warning.

    Raises:
        CurationError: The case of a pair has a different instruction or image than the case with the same id in
            ``cases``.
    """
    cases_by_id = {
        case.case_id: (case.principles, case_digest(case.source.data, case.instruction))
        for case in read_table(cases, EditCase)
    }
    stated = PairConflicts()
    for pair in read_table(pairs, PreferencePair):
        stated.add_pair(pair)
    lost: Counter[str] = Counter()

    def attached() -> Iterator[PreferencePair]:
        for pair in read_table(pairs, PreferencePair):
            principles, digest = cases_by_id.get(pair.case.case_id, ((), ""))
            fault = stated.fault_of(pair)
            if fault is not None or not principles:
                lost[str(fault or "without_principles")] += 1
                continue
            if digest != case_digest(pair.case.source.data, pair.case.instruction):
                raise CurationError(
                    f"{pairs}: pair {pair.pair_id}: case {pair.case.case_id} has a different instruction or image "
                    f"than in {cases}; use tables from the same import"
                )
            yield pair.model_copy(update={"case": pair.case.model_copy(update={"principles": principles})})

    written = write_table(out, attached(), PreferencePair)
    if lost:
        reasons = ", ".join(f"{reason} {count}" for reason, count in lost.items())
        _log.warning("%s: dropped %d of %d pairs: %s", pairs, lost.total(), lost.total() + written, reasons)
    if dropped is not None:
        dropped.update(lost)
    return written
