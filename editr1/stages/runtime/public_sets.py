"""The public sets of an evaluation: principles and marks asked of a VLM, verifiers and editors measured on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from PIL.Image import Image

from editr1.config.evaluate import EvaluateConfig, PublicSetsConfig
from editr1.data.images import decode_image, encode_png
from editr1.data.types import EditCase, EncodedImage, Principle
from editr1.evaluation.benchmarks import (
    Rate,
    gedit_table,
    imgedit_table,
    judge_gedit,
    judge_imgedit,
    load_editscore,
    load_gedit,
    load_gedit_prompts,
    load_imgedit,
    load_prompts,
    load_tiger,
    only,
    rate_with,
    reward_benchmark,
)
from editr1.evaluation.judge import Judge, vlm_judge
from editr1.evaluation.metrics import Bootstrap
from editr1.evaluation.report.model import BenchmarkTable
from editr1.evaluation.scoring import Scorer
from editr1.stages.runtime.context import StageContext

Edit = Callable[[Sequence[Image], Sequence[str]], Sequence[Image]]
"""Edits pictures by instructions, aligned."""
RewardSet = Literal["editscore", "tiger"]
_REWARD_SETS: tuple[RewardSet, ...] = ("editscore", "tiger")


def public_tables(
    context: StageContext,
    config: EvaluateConfig,
    bootstrap: Bootstrap,
    scorers: Mapping[str, Callable[[], Scorer]],
    editors: Mapping[str, Callable[[], Edit]],
) -> tuple[BenchmarkTable, ...]:
    """One table for each public set among the stage's inputs and each verifier (or editor), named by its title.

    Raises:
        BenchmarkError: a set does not have its published layout.
        CurationError, LlmError: The VLM does not answer, or does not write usable principles.
    """
    tables: list[BenchmarkTable] = []
    for name in _REWARD_SETS:
        if name in context.job.inputs:
            tables += _reward_tables(context, config, bootstrap, name, scorers)
    judged = {name: measure for name, measure in _JUDGED.items() if name in context.job.inputs}
    if judged:
        labeller = config.public.labeller
        with vlm_judge(
            labeller.endpoints,
            config.public.judge,
            cache=context.workdir / "marks.sqlite",
            max_side=labeller.max_side,
            seed=labeller.seed,
        ) as judge:
            for judged_set, measure in judged.items():
                for title, load in editors.items():
                    context.progress.phase(f"{title} on {judged_set}", 1)
                    table = measure(Path(context.input(judged_set)), load(), judge, bootstrap)
                    tables.append(_titled(only(table, config.public.protocol), title))
                    context.progress.step()
    return tuple(tables)


def _reward_tables(
    context: StageContext,
    config: EvaluateConfig,
    bootstrap: Bootstrap,
    name: RewardSet,
    scorers: Mapping[str, Callable[[], Scorer]],
) -> Iterator[BenchmarkTable]:
    folder = Path(context.input(name))
    known = _principles(context, config.public, name, folder)
    for title, load in scorers.items():
        context.progress.phase(f"{title} on {name}", 1)
        rate: Rate = rate_with(load(), lambda *case: known.get(_case_id(*case), ()), batch=config.score_batch_size)
        public = config.public
        table = reward_benchmark(
            name, folder, rate, protocol=public.protocol, epsilon=public.epsilon, bootstrap=bootstrap
        )
        context.progress.step()
        yield _titled(table, title)


def _principles(
    context: StageContext, config: PublicSetsConfig, name: RewardSet, folder: Path
) -> dict[str, tuple[Principle, ...]]:
    """The principles of every (source, instruction) of a set; cases whose answer cannot be read have none."""
    from editr1.curation.pipeline import CASES, curate
    from editr1.data.tables import read_table, write_table

    work = context.workdir / f"{name}-{context.job.key[:12]}"
    work.mkdir(exist_ok=True)
    write_table(work / "set.parquet", _cases(name, folder), EditCase)
    curate(config.labeller, cases=work / "set.parquet", candidates=None, out=work, hooks=context.hooks())
    return {case.case_id: case.principles for case in read_table(work / CASES, EditCase)}


def _cases(name: RewardSet, folder: Path) -> Iterator[EditCase]:
    rows = load_editscore(folder) if name == "editscore" else load_tiger(folder)
    seen: set[str] = set()
    for row in rows:
        case_id = _case_id(row.source, row.instruction)
        if case_id not in seen:
            seen.add(case_id)
            yield EditCase(case_id=case_id, source=EncodedImage(data=row.source), instruction=row.instruction)


def _case_id(source: bytes, instruction: str) -> str:
    return hashlib.sha256(hashlib.sha256(source).digest() + instruction.encode()).hexdigest()


def _gedit(folder: Path, edit: Edit, judge: Judge, bootstrap: Bootstrap) -> BenchmarkTable:
    prompts = load_gedit_prompts(folder)
    marks = judge_gedit(load_gedit(folder), lambda item: _edited(edit, item.source, item.instruction), judge, prompts)
    return gedit_table(marks, bootstrap)


def _imgedit(folder: Path, edit: Edit, judge: Judge, bootstrap: Bootstrap) -> BenchmarkTable:
    items, prompts = load_imgedit(folder), load_prompts(folder)
    answers = judge_imgedit(
        items, lambda item: _edited(edit, item.source.read_bytes(), item.instruction), judge, prompts
    )
    return imgedit_table(items, answers, bootstrap)


_JUDGED = {"gedit": _gedit, "imgedit": _imgedit}


def _edited(edit: Edit, source: bytes, instruction: str) -> bytes:
    return encode_png(edit([decode_image(source)], [instruction])[0])


def _titled(table: BenchmarkTable, title: str) -> BenchmarkTable:
    return table.model_copy(update={"name": f"{table.name}, {title}"})
