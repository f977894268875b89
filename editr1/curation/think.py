"""Step 4: several traces a quadruple, from a pool of members (paper section 3.1)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from editr1.config.curate import MemberConfig
from editr1.curation import prompts, wire
from editr1.curation.answers import without_fences
from editr1.curation.parts import PartFile
from editr1.curation.prompts import Task
from editr1.curation.work import Job, each
from editr1.data.types import Principle, Quadruple, Unparsed, Verdict
from editr1.seeding import curation_rng, curation_seed
from editr1.verifier.trace import parse_trace

Trace = tuple[str, str]
"""(member's name, text)."""


def quadruple_id(row: Quadruple) -> str:
    """Key of a quadruple in part files."""
    return f"{row.case.case_id}|{row.candidate.candidate_id}"


def draw_members(
    members: Sequence[MemberConfig], count: int, rng: np.random.Generator
) -> list[tuple[MemberConfig, int]]:
    """Draw a member for each of ``count`` traces by weight; returns each drawn member with its number of traces."""
    weights = np.array([member.weight for member in members])
    drawn = Counter(int(index) for index in rng.choice(len(members), size=count, p=weights / weights.sum()))
    return [(members[index], drawn[index]) for index in sorted(drawn)]


async def think(
    job: Job,
    rows: Iterable[tuple[Quadruple, tuple[Principle, ...]]],
    part: PartFile,
    total: int,
    task: Task = Task.THINK,
) -> None:
    """Write the traces of every quadruple that ``part`` lacks, ``config.traces`` each.

    A member's traces of one quadruple come from one request where the model takes ``n``. ``task`` HOLISTIC asks for
    two marks instead of traces.
    """
    config = job.config

    async def ask(item: tuple[Quadruple, tuple[Principle, ...]]) -> None:
        row, principles = item
        key = quadruple_id(row)

        async def answers(member: MemberConfig, count: int) -> list[Trace]:
            if task is Task.HOLISTIC:
                system, parts = prompts.holistic(row.case, row.candidate.image, member.system)
            else:
                system, parts = prompts.think(row.case, row.candidate.image, principles, member.system)
            chat = wire.messages(system, parts, config.max_side)
            texts = await job.client.ask(member, chat, n=count, seed=curation_seed(config.seed, key, member.name))
            return [(member.name, text) for text in texts]

        drawn = draw_members(config.members, config.num_traces, curation_rng(config.seed, "members", key))
        groups = await asyncio.gather(*(answers(member, count) for member, count in drawn))
        part.put(key, traces=[trace for group in groups for trace in group])

    missing = (item for item in rows if quadruple_id(item[0]) not in part)
    await each(job, "think", missing, ask, total=total, done=len(part))


def traces_in(part: PartFile, key: str) -> list[Trace]:
    """The traces that ``part`` holds for a quadruple, in order; none when it is missing."""
    record = part.get(key) or {}
    return [(member, text) for member, text in record.get("traces", ())]


def parse(trace: Trace, principles: Sequence[Principle]) -> Verdict | Unparsed:
    """Parse a labelling model's trace: as strict as for the verifier, but for code fences, which are taken off."""
    return parse_trace(without_fences(trace[1]), principles)
