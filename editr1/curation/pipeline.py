"""Run the steps of curation in sequence, from cases and candidates to SFT rows (paper section 3.1).

Every step appends its results to a record file. If curation was interrupted or killed, the next call processes only the
items without a record. If the endpoints return the same answers to the same requests, the resulting tables are
byte-identical to those of an uninterrupted call.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from editr1 import __version__
from editr1.config.curate import CurateConfig
from editr1.curation.choose import choose
from editr1.curation.decompose import decompose, recorded_principles
from editr1.curation.errors import CurationError
from editr1.curation.experts import load_expert_examples
from editr1.curation.prompts import Task
from editr1.curation.records import RecordFile
from editr1.curation.rows import RowBuilder
from editr1.curation.select import holistic_principles
from editr1.curation.steps import CurationContext
from editr1.curation.think import parse_member_trace, quadruple_id, recorded_traces, think
from editr1.curation.verify import VerifyItem, verify
from editr1.data.errors import TableError
from editr1.data.tables import count_rows, read_table, write_table
from editr1.data.types import EditCase, Principle, Quadruple, SftRow, Verdict, case_digest
from editr1.data.valid_rows import read_valid_rows
from editr1.llm.event_loop import new_runner
from editr1.llm.vlm import VlmClient
from editr1.telemetry import Span, TrainHooks, span

CASES = "cases.parquet"
ROWS = "rows.parquet"


OnMissing = Callable[[dict[str, int], int], None]
"""Callback that receives the number of items without a usable answer by step and cause, and the total number of items
in these steps."""


def curate(
    config: CurateConfig,
    *,
    cases: Path,
    candidates: Path | None,
    out: Path,
    hooks: TrainHooks | None = None,
    on_missing: OnMissing = lambda causes, total: None,
    usage_file: Path | None = None,
    experts: Path | None = None,
) -> dict[str, float]:
    """Generate the principles of ``cases`` and an SFT row per candidate, and return metrics.

    ``cases`` is a table of EditCase. ``candidates`` is a table of Quadruple, whose cases need no principles. ``experts`` is a file of
    expert examples (:mod:`editr1.curation.experts`); if it is None, the examples of the package are used.

    Two tables are written: ``out/cases.parquet`` (EditCase; cases for which no principles could be generated are
    omitted) and ``out/rows.parquet`` (SftRow; at most one per candidate, in the order of ``candidates``). If
    ``candidates`` is None, only the principles are generated, and no rows are written. Intermediate results are
    stored in ``out/parts`` (in a folder named after a digest of settings and inputs) and in ``out/answers.sqlite``. A
    later call with the same ``out`` reuses them. ``on_missing`` is called at the end with the numbers of items for
    which a later call will send requests again.

    The metrics are ``cases``, ``quadruples``, ``rows``, ``traces``, ``trace_parse_rate``, ``agreement`` (mean over
    rows), ``dropped: <reason>``, ``failed: <step: cause>``, and the client's ``requests``, ``cached``, ``retries``,
    ``prompt_tokens``, ``completion_tokens``, ``cost``. These cover all calls with the same ``usage_file``; without it, only this call.

    Raises:
        TableError: An input is not the expected table, a row violates a rule of :mod:`editr1.data.rules`, or a candidate's
            case differs from the case with the same id. Raised before any request is sent.
        EndpointUnavailable: Too many items, or all of them, failed because an endpoint did not respond.
        EndpointMisconfigured: An endpoint rejects every request.
        CurationError: Too many items failed for other reasons, or one of the tables would be empty.
        Interrupted: ``hooks.should_stop`` returned True.
    """
    hooks = hooks or TrainHooks()
    _check_inputs(cases, candidates)
    with new_runner() as runner:
        counts, (causes, total) = runner.run(_curate(config, cases, candidates, out, hooks, usage_file, experts))
    on_missing(causes, total)
    return counts


def _check_inputs(cases: Path, candidates: Path | None) -> None:
    """Raise TableError for the first row that violates a rule, or for a candidate whose case differs from the case in ``cases``."""
    digests = {
        case.case_id: case_digest(case.source.data, case.instruction) for _, case in read_valid_rows(cases, EditCase)
    }
    if candidates is None:
        return
    for number, row in read_valid_rows(candidates, Quadruple):
        case_id = row.case.case_id
        if case_id in digests and digests[case_id] != case_digest(row.case.source.data, row.case.instruction):
            problem = (
                f"has a different instruction or image than the case with this id in {cases}; use tables from the "
                "same import"
            )
            raise TableError(candidates, number, "case", case_id, problem)


async def _curate(
    config: CurateConfig,
    cases: Path,
    candidates: Path | None,
    out: Path,
    hooks: TrainHooks,
    usage_file: Path | None,
    experts: Path | None,
) -> tuple[dict[str, float], tuple[dict[str, int], int]]:
    pool = load_expert_examples(experts)  # reports a missing file, which the fingerprint also reads
    examples = pool if config.num_examples else []
    folder = out / "parts" / _fingerprint(config, cases, candidates, experts)
    with ExitStack() as stack:

        def records(name: str) -> RecordFile:
            return stack.enter_context(RecordFile(folder / f"{name}.jsonl"))

        async with VlmClient(config.endpoints, out / "answers.sqlite", usage_file) as client:
            context = CurationContext(config, client, hooks, examples)
            data = _Dataset(config, cases, candidates, records)
            data.chosen = await _choose_cases(context, cases, candidates, data.difficulty)
            if config.variant != "holistic":
                await decompose(context, data.cases(), data.decompositions, data.count_cases())
            if candidates is not None:
                await _label(context, data)
            with span(Span.PHASE, phase="select"):
                counts = _write_tables(data, out, context.first_loss)
            counts |= {f"failed: {name}": float(number) for name, number in sorted(context.failures.items())}
            counts |= {name: value for name, value in client.usage.as_dict().items() if name != "failed"}
            return counts, context.missing_items()


async def _choose_cases(
    context: CurationContext, cases: Path, candidates: Path | None, difficulty: RecordFile
) -> set[str] | None:
    """Choose the cases to label, and return their ids, or None if all cases are labelled.

    If ``candidates`` is a table, only cases that have candidates are chosen.
    """
    if context.config.num_labelled_cases is None:
        return None
    eligible = list(read_table(cases, EditCase))
    if candidates is not None:
        with_candidates = {row.case.case_id for row in read_table(candidates, Quadruple)}
        eligible = [case for case in eligible if case.case_id in with_candidates]
    return set(await choose(context, eligible, difficulty))


async def _label(context: CurationContext, data: _Dataset) -> None:
    variant = context.config.variant
    total = sum(1 for _ in data.quadruples())
    if variant != "V":
        task = Task.HOLISTIC if variant == "holistic" else Task.THINK
        await think(context, data.quadruples(), data.traces, total, task)
    if variant in ("V", "T+V"):
        items = data.verify_items_with_hints() if variant == "T+V" else data.verify_items()
        await verify(context, items, data.gold, total)


_RecordOpener = Callable[[str], RecordFile]


class _Dataset:
    """The rows of the input tables together with the recorded results. Each iteration reads the rows from disk again."""

    def __init__(self, config: CurateConfig, cases: Path, candidates: Path | None, records: _RecordOpener) -> None:
        self.config = config
        self.candidates = candidates
        self.chosen: set[str] | None = None
        """Ids of the cases to label, or None if all cases are labelled."""
        self.difficulty = records("choose")
        self.decompositions = records("decompose")
        self.traces = records("think")
        self.gold = records("verify")
        self._cases = cases
        self._fixed_principles = holistic_principles(config.holistic) if config.variant == "holistic" else None

    def principles(self, case_id: str) -> tuple[Principle, ...] | None:
        return self._fixed_principles or recorded_principles(self.decompositions, case_id)

    def cases(self) -> Iterator[EditCase]:
        """Yield the cases that need principles: all cases or, if there are no candidates, only the chosen cases."""
        for case in read_table(self._cases, EditCase):
            if self.candidates is not None or self._is_chosen(case):
                yield case

    def count_cases(self) -> int:
        if self.candidates is not None or self.chosen is None:
            return count_rows(self._cases)
        return len(self.chosen)

    def all_quadruples(self) -> Iterator[Quadruple]:
        if self.candidates is not None:
            for row in read_table(self.candidates, Quadruple):
                if self._is_chosen(row.case):
                    yield row

    def quadruples(self) -> Iterator[tuple[Quadruple, tuple[Principle, ...]]]:
        """Yield each quadruple whose case has principles, together with these principles."""
        for row in self.all_quadruples():
            principles = self.principles(row.case.case_id)
            if principles is not None:
                yield row, principles

    def verify_items(self) -> Iterator[VerifyItem]:
        for row, principles in self.quadruples():
            yield row, principles, ()

    def verify_items_with_hints(self) -> Iterator[VerifyItem]:
        """Yield the quadruples with at least one valid trace, and these traces as hints.

        Other quadruples get no SFT row, so they need no gold verdicts.
        """
        for row, principles in self.quadruples():
            traces = recorded_traces(self.traces, quadruple_id(row))
            hints = [trace[1] for trace in traces if isinstance(parse_member_trace(trace, principles), Verdict)]
            if hints:
                yield row, principles, hints

    def _is_chosen(self, case: EditCase) -> bool:
        return self.chosen is None or case.case_id in self.chosen


_CASE_DROPPED = "case without principles"


def _write_tables(data: _Dataset, out: Path, first_loss: str) -> dict[str, float]:
    """Write the tables, and return the numbers of rows and of dropped items.

    If a table would be empty, CurationError is raised. Its message contains ``first_loss``, the reason why items were
    lost.
    """
    reason = f" {first_loss}." if first_loss else ""
    builder = RowBuilder(data.config, data.traces, data.gold)
    dropped: Counter[str] = Counter()

    def cases() -> Iterator[EditCase]:
        for case in data.cases():
            principles = data.principles(case.case_id)
            if principles is None:
                dropped[_CASE_DROPPED] += 1
            else:
                yield case.model_copy(update={"principles": principles})

    def rows() -> Iterator[SftRow]:
        for quadruple in data.all_quadruples():
            principles = data.principles(quadruple.case.case_id)
            if principles is None:
                dropped["quadruple of such a case"] += 1
                continue
            case = quadruple.case.model_copy(update={"principles": principles})
            made = builder.build(quadruple.model_copy(update={"case": case}))
            if isinstance(made, str):
                dropped[made] += 1
            else:
                yield made

    counts = {"cases": float(write_table(out / CASES, cases(), EditCase))}
    if not counts["cases"]:
        raise CurationError(
            f"no case has principles (dropped: {dict(dropped)}); check the setting decomposer.model."
            " With the setting 'labeller: photos', only the images of 'editr1 data demo-photos' can be labelled."
            + reason
        )
    if data.candidates is not None:
        counts["rows"] = float(write_table(out / ROWS, rows(), SftRow))
        lost = sum(number for reason, number in dropped.items() if reason != _CASE_DROPPED)
        counts["quadruples"] = counts["rows"] + lost
        counts |= builder.metrics()
        if not counts["rows"]:
            raise CurationError(
                f"no row can be written (dropped: {dict(dropped)}); check the models in the settings members and verifier."
                + reason
            )
    return counts | {f"dropped: {reason}": float(number) for reason, number in sorted(dropped.items())}


def _fingerprint(config: CurateConfig, cases: Path, candidates: Path | None, experts: Path | None) -> str:
    """Return a digest of the settings and inputs on which the answers of the models depend.

    In the settings of the endpoints, only the omitted parameters and the additional fields affect the answers. All
    other endpoint settings and ``max_failed_fraction`` are excluded.
    """
    plain = config.model_dump_json(exclude={"endpoints", "max_failed_fraction"})
    state = hashlib.sha256(f"{__version__}\n{plain}".encode())
    for name, endpoint in sorted(config.endpoints.items()):
        if endpoint.omit_parameters or endpoint.extra_body:
            state.update(f"{name}\n{endpoint.model_dump_json(include={'omit_parameters', 'extra_body'})}".encode())
    for path in (cases, candidates, experts):
        digest = b""
        if path is not None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        state.update(digest.ljust(32))
    return state.hexdigest()[:16]
