"""Step 4 of curation: generate several traces per quadruple with a pool of models (paper section 3.1)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from editr1.config.curate import MemberConfig
from editr1.curation import prompts
from editr1.curation.prompts import Task
from editr1.curation.records import RecordFile
from editr1.curation.select import holistic_verdict
from editr1.curation.steps import CurationContext, run_step
from editr1.data.rules import text_fault
from editr1.data.types import Principle, Quadruple, Unparsed, Verdict
from editr1.llm.answers import UnreadableAnswer, strip_code_fences
from editr1.llm.messages import build_messages
from editr1.seeding import curation_rng, curation_seed
from editr1.verifier.trace import parse_trace

Trace = tuple[str, str]
"""The name of the pool member (model) that wrote a trace, and the text of the trace."""


def quadruple_id(row: Quadruple) -> str:
    """Return the id under which a quadruple is stored in record files."""
    return f"{row.case.case_id}|{row.candidate.candidate_id}"


def sample_members(
    members: Sequence[MemberConfig], count: int, rng: np.random.Generator
) -> list[tuple[MemberConfig, int]]:
    """Select a pool member at random, by weight, for each of ``count`` traces.

    Returns each selected member with its number of traces.
    """
    weights = np.array([member.weight for member in members])
    drawn = Counter(int(index) for index in rng.choice(len(members), size=count, p=weights / weights.sum()))
    return [(members[index], drawn[index]) for index in sorted(drawn)]


async def think(
    context: CurationContext,
    rows: Iterable[tuple[Quadruple, tuple[Principle, ...]]],
    records: RecordFile,
    total: int,
    task: Task = Task.THINK,
) -> None:
    """Sample ``config.num_traces`` traces for every quadruple that has no record yet, and add them to ``records``.

    If the server of a model supports ``n``, one request returns all traces of this model for a quadruple. With
    ``Task.HOLISTIC``, the models return two ratings instead of a trace.

    The item fails if no trace of a quadruple can be parsed. If only the traces of one model cannot be parsed, the
    traces of the other models are used. In both cases, the next call requests traces from these models again.
    """
    config = context.config

    async def process(item: tuple[Quadruple, tuple[Principle, ...]]) -> None:
        row, principles = item
        key = quadruple_id(row)

        def parse(text: str) -> Verdict | Unparsed:
            if task is Task.HOLISTIC:
                return holistic_verdict(text, config.holistic)
            return parse_member_trace(("", text), principles)

        async def sample(member: MemberConfig, count: int) -> tuple[list[Trace], str]:
            """Return the traces of a model and, if none can be parsed, the reason why the first trace cannot."""
            if task is Task.HOLISTIC:
                prompt = prompts.holistic(row.case, row.candidate.image, member.system)
            else:
                prompt = prompts.think(row.case, row.candidate.image, principles, member.system)
            chat = build_messages(prompt.system, prompt.parts, config.max_side)
            answers = await context.client.complete(
                member,
                chat,
                n=count,
                seed=curation_seed(config.seed, key, member.name),
                is_readable=lambda text: isinstance(parse(text), Verdict),
            )
            found = [parse(answer.text) for answer in answers]
            faults = [a.explain(f.reason) for a, f in zip(answers, found, strict=True) if isinstance(f, Unparsed)]
            fault = f"model {member.model}: {faults[0]}" if len(faults) == len(answers) else ""
            return [(member.name, answer.text) for answer in answers], fault

        drawn = sample_members(config.members, config.num_traces, curation_rng(config.seed, "members", key))
        groups = await asyncio.gather(*(sample(member, count) for member, count in drawn))
        traces = [trace for found, _ in groups for trace in found]
        faults = [fault for _, fault in groups if fault]
        if not faults:
            records.put(key, traces=traces)
            return
        records.put(key, traces=traces, failed=faults[0])
        if len(faults) == len(groups):
            raise UnreadableAnswer(faults[0])
        context.count_failure("think", "model without a parsed trace", may_succeed_later=True)

    missing = (item for item in rows if quadruple_id(item[0]) not in records)
    await run_step(context, "think", missing, process, total=total, done=len(records))


def recorded_traces(records: RecordFile, key: str) -> list[Trace]:
    """Return the traces in the record with the id ``key``, in their order, or an empty list if there is no such record."""
    record = records.get(key) or {}
    return [(member, text) for member, text in record.get("traces", ())]


def parse_member_trace(trace: Trace, principles: Sequence[Principle]) -> Verdict | Unparsed:
    """Parse the trace of a pool member. It must have the form of the verifier's traces, but may be enclosed in code fences.

    A trace that violates a rule of :mod:`editr1.data.rules`, such as a trace with a control token, is rejected as
    well.
    """
    text = strip_code_fences(trace[1])
    fault = text_fault(text)
    return parse_trace(text, principles) if fault is None else Unparsed(reason=fault)
