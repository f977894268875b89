"""Stage ``curate``: from pictures and instructions to SFT rows, preference pairs and cases with principles."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from editr1.config.curate import CurateConfig
from editr1.config.curate_stage import CurateStageConfig
from editr1.config.loader import ConfigError
from editr1.data.types import EditCase, Noun, PreferencePair, Quadruple
from editr1.stages.context import StageContext
from editr1.stages.entry import main

N = TypeVar("N", bound=Noun)


@dataclass(frozen=True)
class _Tables:
    """What curation starts from. ``cases`` and ``candidates`` become SFT rows, the rest gets principles only."""

    cases: Path
    candidates: Path
    pairs: Path
    pairs_test: Path
    rl_cases: Path
    cases_test: Path


def body(context: StageContext) -> dict[str, float]:
    """Draw or split the data, curate it, and commit rows, pairs and cases."""
    from editr1.curation.pipeline import curate, write_principles

    config = context.settings(CurateStageConfig)
    tables = _imported(context, config) if "data" in context.job.inputs else _drawn(context, config)
    parts = context.workdir / f"parts-{context.job.key[:12]}"
    with _judge(context, config) as curation:
        counts = curate(
            curation, cases=tables.cases, candidates=tables.candidates, out=parts / "rows", hooks=context.hooks()
        )
        _commit(context, "rows", parts / "rows" / "rows.parquet")
        for name, table, kind in (
            ("pairs", tables.pairs, PreferencePair),
            ("pairs-test", tables.pairs_test, PreferencePair),
            ("cases", tables.rl_cases, EditCase),
            ("cases-test", tables.cases_test, EditCase),
        ):
            out = parts / name / f"{name}.parquet"
            write_principles(curation, table=table, kind=kind, out=out, hooks=context.hooks())
            _commit(context, name, out)
    return {name: float(value) for name, value in counts.items()}


def _drawn(context: StageContext, config: CurateStageConfig) -> _Tables:
    from editr1.shapes.dataset import draw_world

    folder = context.workdir / f"world-{context.job.key[:12]}"
    done = folder / "done"
    if not done.exists():
        draw_world(config.world, config.seed, folder)
        done.touch()
    names = ("cases", "candidates", "pairs", "pairs-test", "rl-cases", "cases-test")
    return _Tables(*(folder / f"{name}.parquet" for name in names))


def _imported(context: StageContext, config: CurateStageConfig) -> _Tables:
    """The imported tables, split by a hash of the case id so that a case is never in both halves."""
    from editr1.data.tables import read_table, write_table

    source = Path(context.input("data"))
    folder = context.workdir / f"split-{context.job.key[:12]}"
    folder.mkdir(exist_ok=True)

    def split(name: str, kind: type[N], held_out: bool, out: str) -> Path:
        file = source / f"{name}.parquet"
        if not file.is_file():
            raise ConfigError(f"input data: {name}.parquet is missing; make it with editr1 data import")
        rows = (row for row in read_table(file, kind) if _held_out(_case_of(row), config.test_share) is held_out)
        if write_table(folder / f"{out}.parquet", rows, kind) == 0:
            half = "held-out" if held_out else "training"
            raise ConfigError(f"input data: no row of {name}.parquet falls into the {half} half; change test_share")
        return folder / f"{out}.parquet"

    training = split("cases", EditCase, False, "cases")
    return _Tables(
        cases=training,
        candidates=split("quadruples", Quadruple, False, "candidates"),
        pairs=split("pairs", PreferencePair, False, "pairs"),
        pairs_test=split("pairs", PreferencePair, True, "pairs-test"),
        rl_cases=training,
        cases_test=split("cases", EditCase, True, "cases-test"),
    )


def _case_of(row: Noun) -> str:
    if isinstance(row, EditCase):
        return row.case_id
    assert isinstance(row, PreferencePair | Quadruple)
    return row.case.case_id


def _held_out(case_id: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8], "big") < share * 2**64


def _judge(context: StageContext, config: CurateStageConfig):  # type: ignore[no-untyped-def]
    if config.judge == "endpoint":
        return nullcontext(config.curation)
    raise NotImplementedError


def _commit(context: StageContext, name: str, file: Path) -> None:
    folder = context.output_folder(name)
    shutil.copy2(file, folder / file.name)
    context.commit(name, folder, kind=name.removesuffix("-test"))


if __name__ == "__main__":
    main(body, "editr1.stages.curate")
