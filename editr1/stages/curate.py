"""Stage ``curate``: write SFT rows, and add principles to preference pairs and edit cases."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from editr1.config.curate import CurateConfig
from editr1.config.curate_stage import CurateStageConfig
from editr1.config.loader import ConfigError
from editr1.data.split import held_out_sources
from editr1.data.types import DataModel, EditCase, PreferencePair, Quadruple
from editr1.seeding import offset_seed
from editr1.stages.runtime.context import StageContext
from editr1.stages.runtime.counts import counts_file
from editr1.stages.runtime.entry import main

Row = TypeVar("Row", bound=DataModel)


@dataclass(frozen=True)
class _Tables:
    """Input tables of curation, and functions that return whether a case is used for RL or held out."""

    cases: Path
    candidates: Path
    pairs: Path
    pairs_test: Path
    is_for_rl: Callable[[EditCase], bool]
    is_held_out: Callable[[EditCase], bool]


def body(context: StageContext) -> dict[str, float]:
    """Prepare the input tables, run curation on them, and commit the resulting rows, pairs and cases.

    Return the metrics of curation, such as the number of rows, and the number of dropped pairs per reason.
    """
    from editr1.curation.pairs import attach_principles
    from editr1.curation.pipeline import CASES, ROWS, curate
    from editr1.data.tables import read_table, write_table

    config = context.settings(CurateStageConfig)
    tables = _imported_data(context, config) if "data" in context.job.inputs else _shapes_dataset(context, config)
    out = context.workdir / f"curation-{context.job.key[:12]}"
    with _running_labeller(config) as curation, counts_file(context) as usage_file:
        if "data" in context.job.inputs:
            curation = curation.model_copy(update={"seed": offset_seed(curation.seed, config.seed)})
        counts = curate(
            curation,
            cases=tables.cases,
            candidates=tables.candidates,
            out=out,
            hooks=context.hooks(),
            on_missing=context.add_missing,
            usage_file=usage_file,
            experts=context.expert_examples(),
        )
    _commit(context, "rows", out / ROWS)
    dropped: Counter[str] = Counter()
    for name, pairs in (("pairs", tables.pairs), ("pairs-test", tables.pairs_test)):
        attach_principles(pairs, out / CASES, out / f"{name}.parquet", dropped)
        _commit(context, name, out / f"{name}.parquet")
    for name, is_wanted in (("cases", tables.is_for_rl), ("cases-test", tables.is_held_out)):
        selected = filter(is_wanted, read_table(out / CASES, EditCase))
        write_table(out / f"{name}-selected.parquet", selected, EditCase)
        _commit(context, name, out / f"{name}-selected.parquet")
    return counts | {f"dropped pairs: {reason}": float(count) for reason, count in sorted(dropped.items())}


def _shapes_dataset(context: StageContext, config: CurateStageConfig) -> _Tables:
    from editr1.shapes.dataset import generate_shapes_dataset

    context.progress.phase("generating the shapes dataset", 1)
    dataset = generate_shapes_dataset(config.shapes, config.seed, context.workdir / f"shapes-{context.job.key[:12]}")
    context.progress.step()
    return _Tables(
        cases=dataset.cases,
        candidates=dataset.candidates,
        pairs=dataset.pairs,
        pairs_test=dataset.pairs_test,
        is_for_rl=lambda case: case.case_id.startswith(dataset.rl_prefix),
        is_held_out=lambda case: case.case_id.startswith(dataset.test_prefix),
    )


def _imported_data(context: StageContext, config: CurateStageConfig) -> _Tables:
    """Split the imported tables into training and held-out data.

    The digest of the source image decides, so no source image is in both.
    """
    from editr1.data.tables import read_table

    source = Path(context.input("data"))
    folder = context.workdir / f"split-{context.job.key[:12]}"
    folder.mkdir(exist_ok=True)
    _copy_rows(source, "cases", EditCase, lambda _: True, folder / "cases.parquet")
    digests = [case.source.sha256 for case in read_table(folder / "cases.parquet", EditCase)]
    sources = held_out_sources(digests, config.test_fraction)

    def is_held_out(case: EditCase) -> bool:
        return case.source.sha256 in sources

    def is_training(case: EditCase) -> bool:
        return not is_held_out(case)

    def split(name: str, kind: type[Row], is_wanted: Callable[[EditCase], bool], out: str) -> Path:
        file = folder / f"{out}.parquet"
        _copy_rows(source, name, kind, is_wanted, file)
        return file

    return _Tables(
        cases=folder / "cases.parquet",
        candidates=split("quadruples", Quadruple, is_training, "candidates"),
        pairs=split("pairs", PreferencePair, is_training, "pairs"),
        pairs_test=split("pairs", PreferencePair, is_held_out, "pairs-test"),
        is_for_rl=is_training,
        is_held_out=is_held_out,
    )


def _copy_rows(source: Path, name: str, kind: type[Row], is_wanted: Callable[[EditCase], bool], out: Path) -> None:
    """Copy the rows of an imported table whose cases are accepted by ``is_wanted``.

    Raises:
        ConfigError: The table does not exist, or no row is selected.
        TableError: A row violates a rule of :mod:`editr1.data.rules`.
    """
    from editr1.data.tables import write_table
    from editr1.data.valid_rows import read_valid_rows

    file = source / name / f"{name}.parquet"
    if not file.is_file():
        no_pairs = (
            "the imported table has neither a column 'preferred' nor a column 'rank'; import a table with one of them"
        )
        reason = no_pairs if name == "pairs" else "import the images with editr1 data import"
        raise ConfigError(f"input data: {name}/{name}.parquet is missing: {reason} (see editr1 data import --help)")
    rows = (row for _, row in read_valid_rows(file, kind) if is_wanted(_case(row)))
    if write_table(out, rows, kind) == 0:
        raise ConfigError(
            f"input data: no row of {name}.parquet was selected for the table {out.stem}; change test_fraction or import more source images"
        )


def _case(row: DataModel) -> EditCase:
    if isinstance(row, EditCase):
        return row
    assert isinstance(row, PreferencePair | Quadruple)
    return row.case


@contextmanager
def _running_labeller(config: CurateStageConfig) -> Iterator[CurateConfig]:
    """Context manager that yields the settings of curation with the addresses of running endpoints.

    For the labellers "shapes" and "photos", a local labelling server runs until the context exits.
    """
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
