"""The world's data as tables: cases and candidates for curation, preference pairs, cases for editor RL, held-out sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from editr1.config.curate_stage import WorldConfig
from editr1.data.tables import write_table
from editr1.data.types import EditCase, PreferencePair, Quadruple
from editr1.shapes.annotators import prefer
from editr1.shapes.candidates import make_candidates
from editr1.shapes.cases import draw_cases


def draw_world(config: WorldConfig, seed: int, folder: Path) -> dict[str, Path]:
    """Draw every table of a run into ``folder``; no case occurs in two of them.

    Returns:
        paths by name: ``cases`` (for SFT) with ``candidates`` (Quadruple), ``pairs``, ``pairs-test`` (PreferencePair),
        ``rl-cases`` and ``cases-test`` (EditCase). No case has principles yet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = ("cases", "candidates", "pairs", "pairs-test", "rl-cases", "cases-test")
    paths = {name: folder / f"{name}.parquet" for name in names}
    cases = draw_cases(config.cases, seed, "sft")
    write_table(paths["cases"], cases, EditCase)
    write_table(paths["candidates"], _quadruples(cases, config.candidates, seed), Quadruple)
    write_table(paths["pairs"], _decided(config.pairs, seed, "pair"), PreferencePair)
    write_table(paths["pairs-test"], _decided(config.test_pairs, seed, "pairtest"), PreferencePair)
    write_table(paths["rl-cases"], draw_cases(config.rl_cases, seed, "rl"), EditCase)
    write_table(paths["cases-test"], draw_cases(config.test_cases, seed, "test"), EditCase)
    return paths


def _quadruples(cases: list[EditCase], n: int, seed: int) -> Iterator[Quadruple]:
    for case in cases:
        for candidate in make_candidates(case, seed, n):
            yield Quadruple(case=case, candidate=candidate)


def _decided(n: int, seed: int, prefix: str) -> Iterator[PreferencePair]:
    """Pairs of two drawn candidates each, until ``n`` of them have a winner; "same" pairs stay in between."""
    index = decided = 0
    while decided < n:
        case = draw_cases(1, seed, f"{prefix}{index}")[0]
        first, second = make_candidates(case, seed, 2)
        pair = prefer(case, first, second, seed)
        index += 1
        decided += pair.label == "winner"
        yield pair
