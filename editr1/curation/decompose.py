"""Step 2 of curation: generate the principles (yes/no questions) of each case with a VLM (paper section 3.1).

The prompt contains principles that experts wrote for other cases.
"""

from __future__ import annotations

from collections.abc import Iterable

from editr1.curation import prompts
from editr1.curation.answers import read_principles
from editr1.curation.experts import sample_expert_examples
from editr1.curation.records import RecordFile
from editr1.curation.steps import CurationContext, run_step
from editr1.data.types import EditCase, Principle
from editr1.seeding import curation_rng


async def decompose(context: CurationContext, cases: Iterable[EditCase], records: RecordFile, total: int) -> None:
    """Generate the principles of every case that has no record yet, and add them to ``records``.

    If a case already has principles, they are recorded without a request to the VLM. If no answer for a case can be
    parsed in ``config.max_attempts`` attempts, the item fails, and the next call requests an answer again.
    """
    config = context.config

    async def process(case: EditCase) -> None:
        if case.principles:
            records.put(case.case_id, principles=_as_dicts(case.principles))
            return
        experts = sample_expert_examples(
            context.experts, config.num_examples, curation_rng(config.seed, "experts", case.case_id)
        )
        prompt = prompts.decompose(case, experts, config.principles)
        principles = await context.complete_until_parsed(
            config.decomposer, prompt, lambda text: read_principles(text, config.principles), case.case_id
        )
        records.put(case.case_id, principles=_as_dicts(principles))

    missing = (case for case in cases if case.case_id not in records)
    await run_step(context, "decompose", missing, process, total=total, done=len(records))


def recorded_principles(records: RecordFile, case_id: str) -> tuple[Principle, ...] | None:
    """Return the principles in the record of a case, or None if there is no record."""
    record = records.get(case_id)
    if record is None:
        return None
    return tuple(Principle.model_validate(item) for item in record["principles"])


def _as_dicts(principles: Iterable[Principle]) -> list[dict[str, str]]:
    return [{"question": item.question, "category": item.category.value} for item in principles]
