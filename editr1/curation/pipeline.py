"""Curation from cases and candidates to SFT rows: the steps of paper section 3.1, one after another.

Every step appends what it got to a part file; a call that was interrupted or killed does only what is missing, and the
tables come out the same, byte for byte, as without the interruption (where the endpoints repeat their answers).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from editr1 import __version__
from editr1.config.curate import CurateConfig
from editr1.curation import vlm
from editr1.curation.choose import choose
from editr1.curation.decompose import decompose, principles_in
from editr1.curation.errors import CurationError
from editr1.curation.experts import load_experts
from editr1.curation.pairs import identity
from editr1.curation.parts import PartFile
from editr1.curation.prompts import Task
from editr1.curation.rows import Chooser
from editr1.curation.select import holistic_principles
from editr1.curation.think import parse, quadruple_id, think, traces_in
from editr1.curation.verify import Item, verify
from editr1.curation.vlm import VlmClient
from editr1.curation.work import Job
from editr1.data.errors import TableError
from editr1.data.tables import count_rows, read_table, write_table
from editr1.data.types import EditCase, Principle, Quadruple, SftRow, Verdict
from editr1.telemetry import Span, TrainHooks, span

CASES = "cases.parquet"
ROWS = "rows.parquet"


def curate(
    config: CurateConfig, *, cases: Path, candidates: Path | None, out: Path, hooks: TrainHooks | None = None
) -> dict[str, float]:
    """Label ``cases`` (table of EditCase) and ``candidates`` (table of Quadruple, principles not needed).

    Writes ``out/cases.parquet`` (EditCase with principles; cases without readable principles are left out) and
    ``out/rows.parquet`` (SftRow, one a quadruple, in the order of ``candidates``; not written when that is None: cases
    are then only decomposed). Work in progress lies in ``out/parts`` (by a digest of settings and inputs) and
    ``out/answers.sqlite``; calling again with the same ``out`` goes on from there.

    Returns counts: ``cases``, ``quadruples``, ``rows``, ``traces``, ``trace_parse_rate``, ``agreement`` (mean over
    rows), ``dropped: <why>``, ``failed: <step: cause>``, and the client's ``requests``, ``cached``, ``retries``,
    ``prompt_tokens``, ``completion_tokens``, ``cost``.

    Raises:
        TableError: an input is not the table it should be, or a candidate's case is not the one of that id.
        VlmUnavailable: endpoints gave no answer to too many items, or to all.
        CurationError: an endpoint refuses everything, too many items failed, or nothing is left.
        Interrupted: ``hooks.should_stop`` said yes.
    """
    hooks = hooks or TrainHooks()
    count_rows(cases)
    if candidates is not None:
        count_rows(candidates)
        _check_candidates(cases, candidates)
    return vlm.run(_curate(config, cases, candidates, out, hooks))


def _check_candidates(cases: Path, candidates: Path) -> None:
    known = {case.case_id: identity(case) for case in read_table(cases, EditCase)}
    for number, row in enumerate(read_table(candidates, Quadruple), start=1):
        name = row.case.case_id
        if known.get(name, "") not in ("", identity(row.case)):
            raise TableError(
                candidates,
                number,
                "case",
                name,
                f"has another instruction or picture than the case of that id in {cases}",
            )


async def _curate(
    config: CurateConfig, cases: Path, candidates: Path | None, out: Path, hooks: TrainHooks
) -> dict[str, float]:
    parts = out / "parts" / _fingerprint(config, cases, candidates)
    with ExitStack() as stack:

        def part(name: str) -> PartFile:
            return stack.enter_context(PartFile(parts / f"{name}.jsonl"))

        async with VlmClient(config.endpoints, out / "answers.sqlite") as client:
            job = Job(config, client, hooks, load_experts(config.experts) if config.num_examples else [])
            judged, decomposed, thought, verified = (part(name) for name in ("choose", "decompose", "think", "verify"))
            chosen = await _chosen(job, cases, candidates, judged)
            work = _Work(config, cases, candidates, decomposed, thought, verified, chosen)
            if config.variant != "holistic":
                await decompose(job, work.cases(), decomposed, work.case_count)
            if candidates is not None:
                await _label(job, work)
            with span(Span.PHASE, phase="select"):
                counts = _write(work, out)
            counts |= {f"failed: {name}": float(number) for name, number in sorted(job.failures.items())}
            return counts | {name: value for name, value in client.usage.as_dict().items() if name != "failed"}


async def _chosen(job: Job, cases: Path, candidates: Path | None, judged: PartFile) -> set[str] | None:
    """The cases to be labelled, drawn from those with candidates; None for all."""
    if job.config.num_labelled_cases is None:
        return None
    drawn_from = list(read_table(cases, EditCase))
    if candidates is not None:
        labelled = {row.case.case_id for row in read_table(candidates, Quadruple)}
        drawn_from = [case for case in drawn_from if case.case_id in labelled]
    return set(await choose(job, drawn_from, judged))


async def _label(job: Job, work: _Work) -> None:
    variant = job.config.variant
    total = work.quadruple_count()
    if variant != "V":
        task = Task.HOLISTIC if variant == "holistic" else Task.THINK
        await think(job, work.quadruples(), work.thought, total, task)
    if variant in ("V", "T+V"):
        await verify(job, work.with_hints() if variant == "T+V" else work.without_hints(), work.verified, total)


class _Work:
    """The inputs, joined with what the part files hold, streamed as often as they are needed."""

    def __init__(
        self,
        config: CurateConfig,
        cases: Path,
        candidates: Path | None,
        decomposed: PartFile,
        thought: PartFile,
        verified: PartFile,
        chosen: set[str] | None,
    ) -> None:
        self.config = config
        self.decomposed, self.thought, self.verified = decomposed, thought, verified
        self.chosen = chosen
        self._cases, self.candidates = cases, candidates
        self._fixed = holistic_principles(config.holistic) if config.variant == "holistic" else None
        self._kept = chosen if candidates is None else None
        self.case_count = count_rows(cases) if self._kept is None else len(self._kept)

    def principles(self, case_id: str) -> tuple[Principle, ...] | None:
        return self._fixed or principles_in(self.decomposed, case_id)

    def cases(self) -> Iterator[EditCase]:
        for case in read_table(self._cases, EditCase):
            if self._kept is None or case.case_id in self._kept:
                yield case

    def all_quadruples(self) -> Iterator[Quadruple]:
        if self.candidates is not None:
            for row in read_table(self.candidates, Quadruple):
                if self.chosen is None or row.case.case_id in self.chosen:
                    yield row

    def quadruples(self) -> Iterator[tuple[Quadruple, tuple[Principle, ...]]]:
        for row in self.all_quadruples():
            principles = self.principles(row.case.case_id)
            if principles is not None:
                yield row, principles

    def quadruple_count(self) -> int:
        return sum(1 for _ in self.quadruples())

    def without_hints(self) -> Iterator[Item]:
        for row, principles in self.quadruples():
            yield row, principles, ()

    def with_hints(self) -> Iterator[Item]:
        for row, principles in self.quadruples():
            traces = traces_in(self.thought, quadruple_id(row))
            hints = [text for name, text in traces if isinstance(parse((name, text), principles), Verdict)]
            # Without a trace there is nothing to select: a gold answer would be paid for in vain.
            if hints:
                yield row, principles, hints


def _write(work: _Work, out: Path) -> dict[str, float]:
    chooser = Chooser(work.config, work.thought, work.verified)
    dropped: Counter[str] = Counter()

    def cases() -> Iterator[EditCase]:
        for case in work.cases():
            principles = work.principles(case.case_id)
            if principles is None:
                dropped["case without principles"] += 1
            else:
                yield case.model_copy(update={"principles": principles})

    def rows() -> Iterator[SftRow]:
        for row in work.all_quadruples():
            principles = work.principles(row.case.case_id)
            if principles is None:
                dropped["quadruple of such a case"] += 1
                continue
            case = row.case.model_copy(update={"principles": principles})
            made = chooser.row(row.model_copy(update={"case": case}))
            if isinstance(made, str):
                dropped[made] += 1
            else:
                yield made

    counts = {"cases": float(write_table(out / CASES, cases(), EditCase))}
    if not counts["cases"]:
        raise CurationError(f"no case got principles; dropped: {dict(dropped)}")
    if work.candidates is not None:
        counts["rows"] = float(write_table(out / ROWS, rows(), SftRow))
        counts["quadruples"] = counts["rows"] + sum(
            number for why, number in dropped.items() if why != "case without principles"
        )
        counts |= chooser.figures()
        if not counts["rows"]:
            raise CurationError(f"no quadruple got a row; dropped: {dict(dropped)}")
    return counts | {f"dropped: {why}": float(number) for why, number in sorted(dropped.items())}


def _fingerprint(config: CurateConfig, cases: Path, candidates: Path | None) -> str:
    """Digest of all that answers depend on: where an endpoint is and how hard it is pressed are left out."""
    plain = config.model_dump_json(exclude={"endpoints", "max_failed_fraction"})
    state = hashlib.sha256(f"{__version__}\n{plain}".encode())
    for path in (cases, candidates, config.experts):
        digest = b""
        if path is not None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        state.update(digest.ljust(32))
    return state.hexdigest()[:16]
