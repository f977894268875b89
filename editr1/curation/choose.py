"""Step 1 of curation: choose the cases to label (paper section 3.1).

Some cases are chosen at random, and the others are chosen from the cases that a VLM rates as hard.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from editr1.curation import prompts
from editr1.curation.answers import read_difficulty
from editr1.curation.records import RecordFile
from editr1.curation.steps import CurationContext, run_step
from editr1.data.types import EditCase
from editr1.llm.answers import UnreadableAnswer
from editr1.seeding import curation_rng

_log = logging.getLogger(__name__)
_MIN_BATCH = 16


def split_cases(ids: Sequence[str], count: int, hard_fraction: float, seed: int) -> tuple[list[str], list[str], int]:
    """Choose cases at random, and order the other cases for a rating of their difficulty.

    Returns the ids of the chosen cases, the ids of the other cases in the order in which they will be rated, and the
    number of hard cases to choose among the other cases. The result does not depend on the order of ``ids``.
    """
    order = sorted(ids)
    curation_rng(seed, "choose").shuffle(order)
    wanted = min(count, len(order))
    hard = round(wanted * hard_fraction)
    return order[: wanted - hard], order[wanted - hard :], hard


async def choose(context: CurationContext, cases: Sequence[EditCase], rated: RecordFile) -> list[str]:
    """Choose ``config.num_labelled_cases`` cases, or all cases if it is None, and return their ids.

    The ids have the order of ``cases``. Cases are rated in batches until enough hard cases are found. If there are too few
    hard cases, fewer cases are returned, and a warning is logged.
    """
    config = context.config
    if config.num_labelled_cases is None:
        return [case.case_id for case in cases]
    by_id = {case.case_id: case for case in cases}
    taken, queue, wanted = split_cases(list(by_id), config.num_labelled_cases, config.hard_fraction, config.seed)

    async def rate(case: EditCase) -> None:
        try:
            hard = await context.complete_until_parsed(
                config.difficulty_filter, prompts.difficulty(case), read_difficulty, case.case_id
            )
        except UnreadableAnswer as error:
            # If no answer can be parsed, there is no evidence that the case is hard.
            rated.put(case.case_id, hard=False, failed=str(error))
            raise
        rated.put(case.case_id, hard=hard, reason="")

    hard: list[str] = []
    while queue and len(hard) < wanted:
        size = max(2 * (wanted - len(hard)), _MIN_BATCH)
        batch, queue = queue[:size], queue[size:]
        missing = [by_id[key] for key in batch if key not in rated]
        await run_step(context, "choose", missing, rate, total=len(batch), done=len(batch) - len(missing))
        hard += [key for key in batch if (rated.get(key) or {}).get("hard")]
    if len(hard) < wanted:
        _log.warning(
            "choose: only %d of the %d requested hard cases were found; fewer cases than requested will be labelled",
            len(hard),
            wanted,
        )
    chosen = {*taken, *hard[:wanted]}
    return [case.case_id for case in cases if case.case_id in chosen]
