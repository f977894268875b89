"""The world's data as tables: cases and candidates for curation, preference pairs, cases for editor RL, held-out sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from editr1.config.curate_stage import ShapesConfig
from editr1.data.tables import write_table
from editr1.data.types import EditCase, PreferencePair, Quadruple
from editr1.shapes.annotators import prefer
from editr1.shapes.candidates import make_candidates
from editr1.shapes.cases import draw_cases


@dataclass(frozen=True)
class ShapesDataset:
    """The drawn tables; none has principles yet.

    Each case is drawn for one purpose. The world is small enough that some recur by chance: at one seed 9 of 2,262 held-out
    ones had the picture and instruction of a case for training.
    """

    cases: Path
    """EditCase: every case of the run."""
    candidates: Path
    """Quadruple: edits to become SFT rows."""
    pairs: Path
    """PreferencePair: for GCPO."""
    pairs_test: Path
    """PreferencePair: held out."""
    rl_prefix: str
    """Cases whose id begins so are for editor RL."""
    test_prefix: str
    """Cases whose id begins so are held out."""


def draw_world(config: ShapesConfig, seed: int, folder: Path) -> ShapesDataset:
    """Draw every table of a run into ``folder``; deterministic in ``config`` and ``seed``."""
    folder.mkdir(parents=True, exist_ok=True)
    world = ShapesDataset(
        cases=folder / "cases.parquet",
        candidates=folder / "candidates.parquet",
        pairs=folder / "pairs.parquet",
        pairs_test=folder / "pairs-test.parquet",
        rl_prefix="rl-",
        test_prefix="test-",
    )
    sft = draw_cases(config.cases, seed, "sft")
    pairs, pairs_test = (
        list(decided(n, seed, p)) for n, p in ((config.pairs, "pair"), (config.test_pairs, "pairtest"))
    )
    write_table(world.candidates, _quadruples(sft, config.candidates, seed), Quadruple)
    write_table(world.pairs, pairs, PreferencePair)
    write_table(world.pairs_test, pairs_test, PreferencePair)
    others = [*draw_cases(config.rl_cases, seed, "rl"), *draw_cases(config.test_cases, seed, "test")]
    write_table(world.cases, [*sft, *(pair.case for pair in [*pairs, *pairs_test]), *others], EditCase)
    return world


def _quadruples(cases: list[EditCase], n: int, seed: int) -> Iterator[Quadruple]:
    for case in cases:
        for candidate in make_candidates(case, seed, n):
            yield Quadruple(case=case, candidate=candidate)


def decided(n: int, seed: int, prefix: str) -> Iterator[PreferencePair]:
    """Pairs of two drawn candidates each, until ``n`` of them have a winner; "same" pairs stay in between."""
    index = decided = 0
    while decided < n:
        case = draw_cases(1, seed, f"{prefix}{index}")[0]
        first, second = make_candidates(case, seed, 2)
        pair = prefer(case, first, second, seed)
        index += 1
        decided += pair.label == "winner"
        yield pair
