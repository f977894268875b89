"""The order of preference pairs in a table and in a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1.verifier.pair_layout import PairLayout, pair_count, pair_of_row, row_count


def test_rows_2i_and_2i_plus_1_are_the_winner_and_the_loser_of_pair_i() -> None:
    assert [pair_of_row(row) for row in range(4)] == [(0, "winner"), (0, "loser"), (1, "winner"), (1, "loser")]
    assert (row_count(3), pair_count(6)) == (6, 3)
    with pytest.raises(ValueError, match="5 rows do not form whole pairs"):
        pair_count(5)


def test_batch_repeats_the_winner_and_then_the_loser_of_each_pair() -> None:
    layout = PairLayout(3)
    assert list(layout.rows([4, 1])) == [8, 8, 8, 9, 9, 9, 2, 2, 2, 3, 3, 3]
    assert layout.traces_per_pair == 6


@given(st.integers(1, 4), st.lists(st.integers(0, 9), max_size=5))
def test_split_and_join_are_inverse_and_agree_with_the_rows(num_traces: int, pairs: list[int]) -> None:
    layout = PairLayout(num_traces)
    rows = list(layout.rows(pairs))
    layout.check(rows)
    groups = layout.split(rows)
    assert [(set(winner), set(loser)) for winner, loser in groups] == [({2 * pair}, {2 * pair + 1}) for pair in pairs]
    assert layout.join(groups) == rows


def test_groups_of_the_wrong_size_are_rejected() -> None:
    layout = PairLayout(2)
    with pytest.raises(ValueError, match="6 traces do not form whole pairs of 2 winner and 2 loser traces"):
        layout.split([0.0] * 6)
    with pytest.raises(ValueError, match="2 winner and 1 loser values instead of 2 each"):
        layout.join([([1.0, 2.0], [3.0])])


@pytest.mark.parametrize("rows", [[0, 0, 1], [1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 3, 3], [3, 3, 4, 4]])
def test_batch_in_the_wrong_order_is_rejected(rows: list[int]) -> None:
    with pytest.raises(ValueError, match="does not consist of whole pairs with 2 traces per edit"):
        PairLayout(2).check(rows)
