"""Generate the tables of the shapes dataset: cases, candidates, and preference pairs for training and test."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from editr1.config.curate_stage import ShapesConfig
from editr1.data.tables import write_table
from editr1.data.types import EditCase, PreferencePair, Quadruple
from editr1.shapes.annotators import label_pair
from editr1.shapes.candidates import make_candidates
from editr1.shapes.cases import generate_cases, iterate_cases, without_sources


@dataclass(frozen=True)
class ShapesDataset:
    """Paths of the generated tables, and the id prefixes of the cases for editor RL and for tests.

    The cases have no principles yet. Training and test data are disjoint: no source image of a test pair or test case is
    the source image of a training row, a training pair or a case for editor RL.
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
    pairs = list(decided_pairs(config.pairs, seed, "pair"))
    rl = generate_cases(config.rl_cases, seed, "rl")
    # The number of possible scenes is small, so without this, many test images would also be training images.
    seen = {case.source.sha256 for case in (*sft, *rl, *(pair.case for pair in pairs))}
    pairs_test = list(decided_pairs(config.test_pairs, seed, "pairtest", seen))
    test = list(islice(without_sources(iterate_cases(seed, "test"), seen), config.test_cases))
    write_table(dataset.candidates, _quadruples(sft, config.candidates, seed), Quadruple)
    write_table(dataset.pairs, pairs, PreferencePair)
    write_table(dataset.pairs_test, pairs_test, PreferencePair)
    pair_cases = [pair.case for pair in [*pairs, *pairs_test]]
    write_table(dataset.cases, [*sft, *pair_cases, *rl, *test], EditCase)
    return dataset


def _quadruples(cases: list[EditCase], n: int, seed: int) -> Iterator[Quadruple]:
    for case in cases:
        for candidate in make_candidates(case, seed, n):
            yield Quadruple(case=case, candidate=candidate)


def decided_pairs(n: int, seed: int, prefix: str, excluded: Collection[str] = ()) -> Iterator[PreferencePair]:
    """Generate and label pairs of candidates, and yield them until ``n`` pairs are decided, that is, have a winner.

    Pairs labelled "same" are yielded as well, but are not counted. Cases whose source image has a SHA-256 in
    ``excluded`` are skipped.
    """
    cases = (generate_cases(1, seed, f"{prefix}{index}")[0] for index in count())
    decided = 0
    for case in without_sources(cases, excluded) if n else ():
        first, second = make_candidates(case, seed, 2)
        pair = label_pair(case, first, second, seed)
        decided += pair.label == "winner"
        yield pair
        if decided == n:
            return
