"""Derived seeds and generators keep their exact streams: shipped checkpoints and resumed runs depend on them."""

from __future__ import annotations

import torch

from editr1 import seeding


def test_derived_seeds_and_random_streams_are_unchanged() -> None:
    order = list(range(9))
    seeding.case_order_rng(5, 2).shuffle(order)
    assert order == [7, 3, 5, 8, 1, 0, 2, 4, 6]
    assert seeding.hash_parts("case", "x", 3, b"\x00z").hex()[:16] == "6179d91d191b9425"
    assert seeding.derive_rng("case", "x", 3, b"\x00z").integers(1 << 40) == 440961376296
    assert seeding.derive_seed(7, "edit", b"ab", 3) == 2915982646687028355
    assert seeding.curation_rng(0, "choose").integers(1 << 40) == 733347070898
    assert seeding.curation_seed(0, "a", 1) == 597688857
    assert seeding.sample_seed(0, 1, 2, 3) == 6601055888637063886
    assert [seeding.window_rng(3, i, None).randint(0, 6) for i in range(8)] == [4, 2, 0, 6, 3, 6, 0, 3]
    assert seeding.window_rng(3, 1, 4).randint(0, 6) == 4
    assert seeding.hash_fraction("case-1") == 0.7270867583774069
    assert seeding.pair_order_seed(3, 2) == 3000011
    assert seeding.stream_rng(1, 3).integers(1 << 40) == 15468631922
    assert torch.randint(1 << 40, (1,), generator=seeding.torch_generator(4)).item() == 527854149806


def test_parts_with_equal_concatenation_give_different_seeds() -> None:
    lists = (("ab", "c"), ("a", "bc"), ("abc",), ("abc", 1), (b"abc", "1x"))
    assert len({seeding.hash_parts(*parts) for parts in lists}) == len(lists)
    seeds = [seeding.derive_seed(seed, *parts) for seed in (1, 2) for parts in lists]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_offset_seed_stays_in_range() -> None:
    assert seeding.offset_seed(3, 4) == 7
    assert seeding.offset_seed(-3, 1) == -2
    assert seeding.offset_seed(2**63 - 1, 2) == 1
