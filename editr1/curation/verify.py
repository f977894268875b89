"""Step 5: the gold 0/1 of each principle, by another VLM that sees the traces as hints (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from editr1.curation import prompts
from editr1.curation.answers import read_gold
from editr1.curation.parts import PartFile
from editr1.curation.think import quadruple_id
from editr1.curation.work import Job, ask_until_read, each
from editr1.data.types import Principle, Quadruple

Item = tuple[Quadruple, tuple[Principle, ...], Sequence[str]]
"""Quadruple, principles, traces to show."""


async def verify(job: Job, rows: Iterable[Item], part: PartFile, total: int) -> None:
    """Write the gold verdicts of every quadruple that ``part`` lacks; unreadable answers get a record without gold."""

    async def ask(item: Item) -> None:
        row, principles, hints = item
        key = quadruple_id(row)
        prompt = prompts.verify(row.case, row.candidate.image, principles, hints)
        gold = await ask_until_read(job, job.config.verifier, prompt, lambda text: read_gold(text, principles), key)
        if isinstance(gold, str):
            part.put(key, failed=gold)
        else:
            part.put(key, gold=gold)

    missing = (item for item in rows if quadruple_id(item[0]) not in part)
    await each(job, "verify", missing, ask, total=total, done=len(part))


def gold_in(part: PartFile, key: str) -> tuple[int, ...] | None:
    """The gold verdicts that ``part`` holds for a quadruple; None when there are none."""
    record = part.get(key) or {}
    return tuple(record["gold"]) if "gold" in record else None
