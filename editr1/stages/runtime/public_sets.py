"""Evaluate verifiers and editors on public benchmarks, as a part of the evaluation stage.

Reward benchmarks (EditScore, TIGER) compare the verifier's scores with human preferences. A VLM writes the principles
of each case. Editor benchmarks (GEdit-Bench, ImgEdit-Bench) measure the quality
of edits. A VLM, called the judge, rates these edits.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from editr1.config.evaluate import EvaluateConfig, PublicSetsConfig
from editr1.data.images import decode_image, encode_png
from editr1.data.types import EditCase, EncodedImage, Principle, Unparsed, case_digest
from editr1.evaluation.benchmarks import (
    BenchmarkScorer,
    gedit_table,
    imgedit_table,
    judge_gedit,
    judge_imgedit,
    load_editscore,
    load_gedit,
    load_gedit_prompts,
    load_imgedit,
    load_imgedit_prompts,
    load_tiger,
    reward_benchmark,
    select_protocol,
)
from editr1.evaluation.editor_eval import EditFunction
from editr1.evaluation.items import PublicItem, recorded_judge, recorded_scorer
from editr1.evaluation.judge import Judge, Ratings, parse_imgedit, parse_viescore, vlm_judge
from editr1.evaluation.metrics import Bootstrap
from editr1.evaluation.report.model import BenchmarkTable
from editr1.evaluation.scoring import FailureTally, Scorer
from editr1.stages.runtime.context import StageContext

_log = logging.getLogger(__name__)

RewardBenchmark = Literal["editscore", "tiger"]
_REWARD_BENCHMARKS: tuple[RewardBenchmark, ...] = ("editscore", "tiger")


def check_benchmarks(context: StageContext) -> None:
    """Read every public benchmark among the stage's inputs, and check every row.

    Raises:
        BenchmarkError: The folder of a benchmark does not have the published layout, or a row violates a rule of
            :mod:`editr1.data.rules`.
    """
    loaders: dict[str, Callable[[Path], Iterable[object]]] = {
        "editscore": load_editscore, "tiger": load_tiger, "gedit": load_gedit, "imgedit": load_imgedit,
    }  # fmt: skip
    for name, load in loaders.items():
        if name in context.job.inputs:
            for _ in load(Path(context.input(name))):
                pass


def benchmark_tables(
    context: StageContext,
    config: EvaluateConfig,
    bootstrap: Bootstrap,
    scorers: Mapping[str, Callable[[], Scorer]],
    editors: Mapping[str, Callable[[], EditFunction]],
    items: list[PublicItem],
) -> tuple[BenchmarkTable, ...]:
    """Return the results on every public benchmark among the stage's inputs.

    Args:
        context: Context of the running stage.
        config: Settings of the evaluation.
        bootstrap: Settings of the bootstrap.
        scorers: Functions that load a verifier, by its title in the report.
        editors: Functions that load an editor, by its title in the report.
        items: List to which every request about an edit is appended.

    Returns:
        One table for each benchmark and each verifier or editor that is evaluated on it.

    Raises:
        BenchmarkError: The folder of a benchmark does not have the published layout.
        CurationError: The VLM's principles cannot be parsed.
        LlmError: The VLM does not respond, or its server rejects every request.
        TooManyFailures: A larger fraction of edits has no score than ``config.max_failed_fraction`` allows.
    """
    tables: list[BenchmarkTable] = []
    for name in _REWARD_BENCHMARKS:
        if name in context.job.inputs:
            tables += _reward_tables(context, config, bootstrap, name, scorers, items)
    judged = {name: evaluate for name, evaluate in _JUDGED_BENCHMARKS.items() if name in context.job.inputs}
    for benchmark, (evaluate, parse) in judged.items():
        for title, load in editors.items():
            context.progress.phase(f"{title} on {benchmark}", 1)
            with _judge(context, config, parse) as judge:
                recorded = recorded_judge(judge, f"{benchmark}, {title}", items)
                table = evaluate(Path(context.input(benchmark)), load(), recorded, bootstrap)
            tables.append(_checked(_titled(select_protocol(table, config.public.protocol), title), config))
            failed = {f"{tables[-1].name}: {cause}": n for cause, n in table.failures.items() if n}
            context.add_missing(failed, table.num_edits)
            context.progress.step()
    return tuple(tables)


def _judge(
    context: StageContext, config: EvaluateConfig, parse: Callable[[str], Ratings | Unparsed]
) -> AbstractContextManager[Judge]:
    labeller = config.public.labeller
    return vlm_judge(
        labeller.endpoints,
        config.public.judge,
        parse,
        cache=context.workdir / "marks.sqlite",
        max_side=labeller.max_side,
        seed=labeller.seed,
        max_failed_fraction=config.max_failed_fraction,
    )


def _checked(table: BenchmarkTable, config: EvaluateConfig) -> BenchmarkTable:
    """Return ``table`` unchanged.

    Log the number of edits without a score, and raise an exception if the settings do not allow this number.

    Raises:
        RequestRefused: The judge rejected every request, so that another attempt would fail as well.
        TooManyFailures: A larger fraction of edits has no score than ``config.max_failed_fraction`` allows.
    """
    from editr1.llm.errors import RequestRefused

    tally = FailureTally(config.max_failed_fraction, table.num_edits, Counter(table.failures), table.first_failure)
    if tally.num_failed and tally.causes["refused"] == tally.num_edits:
        raise RequestRefused(f"{table.name}: the judge rejected all {tally.num_edits} edits: {tally.first}")
    if tally.num_failed:
        by_cause = ", ".join(f"{cause}: {n}" for cause, n in tally.causes.most_common())
        text = "%s: %d of %d edits have no score (%s). The first failure: %s"
        _log.warning(text, table.name, tally.num_failed, tally.num_edits, by_cause, tally.first[:300])
    tally.check()
    return table


def _reward_tables(
    context: StageContext,
    config: EvaluateConfig,
    bootstrap: Bootstrap,
    name: RewardBenchmark,
    scorers: Mapping[str, Callable[[], Scorer]],
    items: list[PublicItem],
) -> Iterator[BenchmarkTable]:
    folder = Path(context.input(name))
    known = _principles(context, config.public, name, folder)
    for title, load in scorers.items():
        context.progress.phase(f"{title} on {name}", 1)
        score = BenchmarkScorer(
            recorded_scorer(load(), f"{name}, {title}", items),
            lambda *case: known.get(case_digest(*case), ()),
            batch_size=config.score_batch_size,
            max_failed_fraction=config.max_failed_fraction,
        )
        public = config.public
        table = reward_benchmark(
            name, folder, score, protocol=public.protocol, epsilon=public.epsilon, bootstrap=bootstrap
        )
        context.progress.step()
        tally = score.tally
        failed = {"num_edits": tally.num_edits, "failures": tally.causes, "first_failure": tally.first}
        yield _checked(_titled(table.model_copy(update=failed), title), config)


def _principles(
    context: StageContext, config: PublicSetsConfig, name: RewardBenchmark, folder: Path
) -> dict[str, tuple[Principle, ...]]:
    """Generate the principles of every case with the VLM, and return them by case id.

    Cases for which this failed are omitted.
    """
    from editr1.curation.pipeline import CASES, curate
    from editr1.data.tables import read_table, write_table

    work = context.workdir / f"{name}-{context.job.key[:12]}"
    work.mkdir(exist_ok=True)
    write_table(work / "set.parquet", _cases(name, folder), EditCase)
    curate(
        config.labeller,
        cases=work / "set.parquet",
        candidates=None,
        out=work,
        hooks=context.hooks(),
        on_missing=context.add_missing,
        experts=context.expert_examples(),
    )
    return {case.case_id: case.principles for case in read_table(work / CASES, EditCase)}


def _cases(name: RewardBenchmark, folder: Path) -> Iterator[EditCase]:
    rows = load_editscore(folder) if name == "editscore" else load_tiger(folder)
    seen: set[str] = set()
    for row in rows:
        case_id = case_digest(row.source, row.instruction)
        if case_id not in seen:
            seen.add(case_id)
            yield EditCase(case_id=case_id, source=EncodedImage(data=row.source), instruction=row.instruction)


def _gedit(folder: Path, edit: EditFunction, judge: Judge, bootstrap: Bootstrap) -> BenchmarkTable:
    prompts = load_gedit_prompts(folder)
    ratings = judge_gedit(load_gedit(folder), lambda item: _edited(edit, item.source, item.instruction), judge, prompts)
    return gedit_table(ratings, bootstrap)


def _imgedit(folder: Path, edit: EditFunction, judge: Judge, bootstrap: Bootstrap) -> BenchmarkTable:
    items, prompts = load_imgedit(folder), load_imgedit_prompts(folder)
    answers = judge_imgedit(
        items, lambda item: _edited(edit, item.source.read_bytes(), item.instruction), judge, prompts
    )
    return imgedit_table(items, answers, bootstrap)


_Evaluate = Callable[[Path, EditFunction, Judge, Bootstrap], BenchmarkTable]
_JUDGED_BENCHMARKS: dict[str, tuple[_Evaluate, Callable[[str], Ratings | Unparsed]]] = {
    "gedit": (_gedit, parse_viescore),
    "imgedit": (_imgedit, parse_imgedit),
}
"""For each benchmark with a judge: the function that evaluates an editor, and the parser of the judge's answers."""


def _edited(edit: EditFunction, source: bytes, instruction: str) -> bytes:
    return encode_png(edit([decode_image(source)], [instruction])[0])


def _titled(table: BenchmarkTable, title: str) -> BenchmarkTable:
    return table.model_copy(update={"name": f"{table.name}, {title}"})
