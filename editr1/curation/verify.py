"""Step 5 of curation: another VLM answers each principle, with the traces as hints (paper section 3.1).

Its answers (0 or 1) are the gold verdicts, which serve as the reference for selecting a trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from editr1.curation import prompts
from editr1.curation.answers import read_gold
from editr1.curation.records import RecordFile
from editr1.curation.steps import CurationContext, run_step
from editr1.curation.think import quadruple_id
from editr1.data.types import Principle, Quadruple

VerifyItem = tuple[Quadruple, tuple[Principle, ...], Sequence[str]]
"""A quadruple, its principles, and the traces that the prompt contains as hints."""


async def verify(context: CurationContext, items: Iterable[VerifyItem], records: RecordFile, total: int) -> None:
    """Generate the gold verdicts of every quadruple that has no record yet, and add them to ``records``.

    If no answer for a quadruple can be parsed in ``config.max_attempts`` attempts, the item fails, and the next call
    requests an answer again.
    """

    async def process(item: VerifyItem) -> None:
        row, principles, hints = item
        key = quadruple_id(row)
        prompt = prompts.verify(row.case, row.candidate.image, principles, hints)
        gold = await context.complete_until_parsed(
            context.config.verifier, prompt, lambda text: read_gold(text, principles), key
        )
        records.put(key, gold=gold)

    missing = (item for item in items if quadruple_id(item[0]) not in records)
    await run_step(context, "verify", missing, process, total=total, done=len(records))


def recorded_gold(records: RecordFile, key: str) -> tuple[int, ...] | None:
    """Return the gold verdicts in the record with the id ``key``, or None if there is no record."""
    record = records.get(key)
    return None if record is None else tuple(record["gold"])
