"""Stage ``curate``: from pictures and instructions to SFT rows, preference pairs and cases with principles."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from editr1.config.curate import CurateConfig
from editr1.config.curate_stage import CurateStageConfig
from editr1.config.loader import ConfigError
from editr1.data.types import DataModel, EditCase, PreferencePair, Quadruple
from editr1.seeding import hash_fraction
from editr1.stages.runtime.context import StageContext
from editr1.stages.runtime.entry import main

N = TypeVar("N", bound=DataModel)


@dataclass(frozen=True)
class _Tables:
    """What curation starts from; ``for_rl`` and ``held_out`` tell a case's use by its id."""

    cases: Path
    candidates: Path
    pairs: Path
    pairs_test: Path
    for_rl: Callable[[str], bool]
    held_out: Callable[[str], bool]


def body(context: StageContext) -> dict[str, float]:
    """Draw or split the data, curate it, and commit rows, pairs and cases."""
    from editr1.curation.pairs import attach_principles
    from editr1.curation.pipeline import CASES, ROWS, curate
    from editr1.data.tables import read_table, write_table

    config = context.settings(CurateStageConfig)
    tables = _imported(context, config) if "data" in context.job.inputs else _drawn(context, config)
    done = context.workdir / f"curation-{context.job.key[:12]}"
    with _answering(config) as curation:
        counts = curate(curation, cases=tables.cases, candidates=tables.candidates, out=done, hooks=context.hooks())
    _commit(context, "rows", done / ROWS)
    for name, pairs in (("pairs", tables.pairs), ("pairs-test", tables.pairs_test)):
        attach_principles(pairs, done / CASES, done / f"{name}.parquet")
        _commit(context, name, done / f"{name}.parquet")
    for name, wanted in (("cases", tables.for_rl), ("cases-test", tables.held_out)):
        chosen = (case for case in read_table(done / CASES, EditCase) if wanted(case.case_id))
        write_table(done / f"{name}-chosen.parquet", chosen, EditCase)
        _commit(context, name, done / f"{name}-chosen.parquet")
    return counts


def _drawn(context: StageContext, config: CurateStageConfig) -> _Tables:
    from editr1.shapes.dataset import generate_shapes_dataset

    context.progress.phase("drawing the shapes dataset", 1)
    world = generate_shapes_dataset(config.shapes, config.seed, context.workdir / f"world-{context.job.key[:12]}")
    context.progress.step()
    return _Tables(
        cases=world.cases,
        candidates=world.candidates,
        pairs=world.pairs,
        pairs_test=world.pairs_test,
        for_rl=lambda case: case.startswith(world.rl_prefix),
        held_out=lambda case: case.startswith(world.test_prefix),
    )


def _imported(context: StageContext, config: CurateStageConfig) -> _Tables:
    """The imported tables, split by a hash of the case id so that a case is never in both halves."""
    from editr1.data.tables import read_table, write_table

    source = Path(context.input("data"))
    folder = context.workdir / f"split-{context.job.key[:12]}"
    folder.mkdir(exist_ok=True)

    def held_out(case: str) -> bool:
        return hash_fraction(case) < config.test_fraction

    def split(name: str, kind: type[N], wanted: Callable[[str], bool], out: str) -> Path:
        file = source / name / f"{name}.parquet"
        if not file.is_file():
            why = "nobody's preference was imported (column preferred or rank)" if name == "pairs" else "not an import"
            raise ConfigError(f"input data: {name}/{name}.parquet is missing: {why}; see editr1 data import --help")
        rows = (row for row in read_table(file, kind) if wanted(_case_of(row)))
        if write_table(folder / f"{out}.parquet", rows, kind) == 0:
            raise ConfigError(f"input data: no row of {name}.parquet is left for {out}; change test_fraction")
        return folder / f"{out}.parquet"

    def training(case: str) -> bool:
        return not held_out(case)

    return _Tables(
        cases=split("cases", EditCase, lambda _: True, "cases"),
        candidates=split("quadruples", Quadruple, training, "candidates"),
        pairs=split("pairs", PreferencePair, training, "pairs"),
        pairs_test=split("pairs", PreferencePair, held_out, "pairs-test"),
        for_rl=training,
        held_out=held_out,
    )


def _case_of(row: DataModel) -> str:
    if isinstance(row, EditCase):
        return row.case_id
    assert isinstance(row, PreferencePair | Quadruple)
    return row.case.case_id


@contextmanager
def _answering(config: CurateStageConfig) -> Iterator[CurateConfig]:
    """The curation settings with an endpoint that answers: the user's own, or a judge started for the stage."""
    if config.labeller == "endpoint":
        yield config.curation
        return
    from editr1.shapes.labeller_server import labeller_server

    with labeller_server(config.labeller) as url:
        endpoints = {
            name: endpoint.model_copy(update={"base_url": url}) for name, endpoint in config.curation.endpoints.items()
        }
        yield config.curation.model_copy(update={"endpoints": endpoints})


def _commit(context: StageContext, name: str, file: Path) -> None:
    folder = context.output_folder(name)
    shutil.copy2(file, folder / f"{name}.parquet")
    context.commit(name, folder, kind=name.removesuffix("-test"))


if __name__ == "__main__":
    main(body, "editr1.stages.curate")
