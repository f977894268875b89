"""Generate the tables of the shapes dataset: cases, candidates, and preference pairs for training and test."""

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
    """Paths of the generated tables, and the id prefixes of the cases for editor RL and for tests.

    The cases have no principles yet. Training and test cases are generated independently. Because there are few possible
    scenes, a test case can equal a training case by chance. With one seed, 9 of 2,262 test cases had the same image and
    instruction as a training case.
    """

    cases: Path
    """Table of ``EditCase`` with all cases of the run."""
    candidates: Path
    """Table of ``Quadruple`` with the candidates from which curation creates the SFT rows."""
    pairs: Path
    """Table of ``PreferencePair`` with the training pairs of GCPO."""
    pairs_test: Path
    """Table of ``PreferencePair`` with the test pairs."""
    rl_prefix: str
    """The ids of the cases for editor RL start with this prefix."""
    test_prefix: str
    """The ids of the test cases start with this prefix."""


def generate_shapes_dataset(config: ShapesConfig, seed: int, folder: Path) -> ShapesDataset:
    """Generate all tables of a run, and write them to ``folder``. Their content depends only on ``config`` and ``seed``."""
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
    """Generate and label pairs of candidates, and yield them until ``n`` pairs are decided, that is, have a winner.

    Pairs labelled "same" are yielded as well, but are not counted.
    """
    index = decided = 0
    while decided < n:
        case = generate_cases(1, seed, f"{prefix}{index}")[0]
        first, second = make_candidates(case, seed, 2)
        pair = label_pair(case, first, second, seed)
        index += 1
        decided += pair.label == "winner"
        yield pair
