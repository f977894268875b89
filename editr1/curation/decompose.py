"""Step 2: principles of a case, written by a VLM with expert examples in context (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable

from editr1.curation import prompts
from editr1.curation.answers import read_principles
from editr1.curation.experts import draw_experts
from editr1.curation.parts import PartFile
from editr1.curation.work import Job, ask_until_read, each
from editr1.data.types import EditCase, Principle
from editr1.seeding import curation_rng


async def decompose(job: Job, cases: Iterable[EditCase], part: PartFile, total: int) -> None:
    """Write the principles of every case that ``part`` lacks.

    A case that brings principles keeps them and is not asked about. One whose answers cannot be read after
    ``config.attempts`` gets a record without principles, which :func:`principles_in` gives as None.
    """
    config = job.config

    async def ask(case: EditCase) -> None:
        if case.principles:
            part.put(case.case_id, principles=_plain(case.principles))
            return
        experts = draw_experts(job.experts, config.num_examples, curation_rng(config.seed, "experts", case.case_id))
        prompt = prompts.decompose(case, experts, config.principles)
        answer = await ask_until_read(
            job, config.decomposer, prompt, lambda text: read_principles(text, config.principles), case.case_id
        )
        if isinstance(answer, str):
            part.put(case.case_id, failed=answer)
        else:
            part.put(case.case_id, principles=_plain(answer))

    missing = (case for case in cases if case.case_id not in part)
    await each(job, "decompose", missing, ask, total=total, done=len(part))


def principles_in(part: PartFile, case_id: str) -> tuple[Principle, ...] | None:
    """The principles that ``part`` holds for a case; None when there are none."""
    record = part.get(case_id)
    if record is None or "principles" not in record:
        return None
    return tuple(Principle.model_validate(item) for item in record["principles"])


def _plain(principles: Iterable[Principle]) -> list[dict[str, str]]:
    return [{"question": item.question, "category": item.category.value} for item in principles]
