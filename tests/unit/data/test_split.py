"""Split of imported data by source image."""

from __future__ import annotations

import hashlib

import pytest

from editr1.data.split import held_out_sources

DIGESTS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(2000)]


def test_fraction_of_the_sources_is_held_out() -> None:
    assert 540 < len(held_out_sources(DIGESTS, 0.3)) < 660
    assert held_out_sources(DIGESTS, 0.0) == frozenset()


def test_order_and_repetitions_of_sources_do_not_matter() -> None:
    assert held_out_sources(DIGESTS, 0.3) == held_out_sources([*reversed(DIGESTS), *DIGESTS], 0.3)


def test_source_stays_on_its_side_when_others_are_added() -> None:
    assert held_out_sources(DIGESTS[:500], 0.3) == held_out_sources(DIGESTS, 0.3) & {*DIGESTS[:500]}


@pytest.mark.parametrize("fraction", [0.001, 0.3, 0.999])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_each_side_gets_a_source(fraction: float, count: int) -> None:
    for first in range(0, 200, count):
        assert 1 <= len(held_out_sources(DIGESTS[first : first + count], fraction)) < count


def test_single_source_stays_on_the_side_of_its_hash() -> None:
    assert {len(held_out_sources([digest], 0.5)) for digest in DIGESTS[:20]} == {0, 1}
