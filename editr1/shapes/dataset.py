"""The tables of the shapes dataset: cases and candidates for curation, preference pairs, cases for editor RL, test sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from editr1.config.curate_stage import ShapesConfig
from editr1.data.tables import write_table
from editr1.data.types import EditCase, PreferencePair, Quadruple
from editr1.shapes.annotators import label_pair
from editr1.shapes.candidates import make_candidates
from editr1.shapes.cases import generate_cases


@dataclass(frozen=True)
class ShapesDataset:
    """The generated tables. Their cases have no principles yet.

    Each case is generated for one table. Because there are few possible scenes, some cases recur by chance: with one seed,
    9 of 2,262 test cases had the image and instruction of a training case.
    """

    cases: Path
    """``EditCase``: all cases of the run."""
    candidates: Path
    """``Quadruple``: the edits that SFT rows are made from."""
    pairs: Path
    """``PreferencePair``: training pairs of GCPO."""
    pairs_test: Path
    """``PreferencePair``: test pairs."""
    rl_prefix: str
    """Prefix of the ids of cases for editor RL."""
    test_prefix: str
    """Prefix of the ids of test cases."""


def generate_shapes_dataset(config: ShapesConfig, seed: int, folder: Path) -> ShapesDataset:
    """Generate every table of a run in ``folder``. Deterministic given ``config`` and ``seed``."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = ShapesDataset(
        cases=folder / "cases.parquet",
        candidates=folder / "candidates.parquet",
        pairs=folder / "pairs.parquet",
        pairs_test=folder / "pairs-test.parquet",
        rl_prefix="rl-",
        test_prefix="test-",
    )
    sft = generate_cases(config.cases, seed, "sft")
    pairs, pairs_test = (
        list(decided_pairs(n, seed, p)) for n, p in ((config.pairs, "pair"), (config.test_pairs, "pairtest"))
    )
    write_table(dataset.candidates, _quadruples(sft, config.candidates, seed), Quadruple)
    write_table(dataset.pairs, pairs, PreferencePair)
    write_table(dataset.pairs_test, pairs_test, PreferencePair)
    others = [*generate_cases(config.rl_cases, seed, "rl"), *generate_cases(config.test_cases, seed, "test")]
    write_table(dataset.cases, [*sft, *(pair.case for pair in [*pairs, *pairs_test]), *others], EditCase)
    return dataset


def _quadruples(cases: list[EditCase], n: int, seed: int) -> Iterator[Quadruple]:
    for case in cases:
        for candidate in make_candidates(case, seed, n):
            yield Quadruple(case=case, candidate=candidate)


def decided_pairs(n: int, seed: int, prefix: str) -> Iterator[PreferencePair]:
    """Generate pairs of candidates until ``n`` of them have a winner. Pairs labelled "same" are included."""
    index = decided = 0
    while decided < n:
        case = generate_cases(1, seed, f"{prefix}{index}")[0]
        first, second = make_candidates(case, seed, 2)
        pair = label_pair(case, first, second, seed)
        index += 1
        decided += pair.label == "winner"
        yield pair
