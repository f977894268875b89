"""Step 1: which cases are worth labelling (paper section 3.1): some at random, the others hard by a judge."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from editr1.curation import prompts
from editr1.curation.answers import read_judgement
from editr1.curation.parts import PartFile
from editr1.curation.work import Job, ask_until_read, each
from editr1.data.types import EditCase
from editr1.seeding import curation_rng

_log = logging.getLogger(__name__)


def split_draw(ids: Sequence[str], count: int, hard_fraction: float, seed: int) -> tuple[list[str], list[str], int]:
    """Draw an order; its head is taken as it is, its tail is for the judge.

    Returns the ids taken at random, the ids to be judged in order, and how many hard ones are wanted. The order depends
    on ``seed`` and the ids alone.
    """
    order = sorted(ids)
    curation_rng(seed, "choose").shuffle(order)
    wanted = min(count, len(order))
    hard = round(wanted * hard_fraction)
    return order[: wanted - hard], order[wanted - hard :], hard


async def choose(job: Job, cases: Sequence[EditCase], judged: PartFile) -> list[str]:
    """Ids of ``config.choose`` cases, in the order of ``cases``; all of them when it is None.

    Cases are judged in waves until enough hard ones are found. Where the judge finds too few, fewer cases are returned
    and a warning names the numbers.
    """
    if job.config.num_labelled_cases is None:
        return [case.case_id for case in cases]
    by_id = {case.case_id: case for case in cases}
    taken, queue, wanted = split_draw(
        list(by_id), job.config.num_labelled_cases, job.config.hard_fraction, job.config.seed
    )

    async def ask(case: EditCase) -> None:
        answer = await ask_until_read(
            job, job.config.difficulty_filter, prompts.judge(case), read_judgement, case.case_id
        )
        # An unreadable judgement is no evidence that the case is hard.
        judged.put(case.case_id, hard=answer is True, reason=answer if isinstance(answer, str) else "")

    hard: list[str] = []
    while queue and len(hard) < wanted:
        size = max(2 * (wanted - len(hard)), 16)
        wave, queue = queue[:size], queue[size:]
        missing = [by_id[key] for key in wave if key not in judged]
        await each(job, "choose", missing, ask, total=len(wave), done=len(wave) - len(missing))
        hard += [key for key in wave if (judged.get(key) or {}).get("hard")]
    if len(hard) < wanted:
        _log.warning("choose: %d hard cases found where %d are wanted", len(hard), wanted)
    chosen = {*taken, *hard[:wanted]}
    return [case.case_id for case in cases if case.case_id in chosen]
