import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_cl.core.relations import Ragged

LISTS = st.lists(st.lists(st.integers(0, 50), max_size=5), max_size=8)


def as_lists(ragged):
    return [ragged[row].tolist() for row in range(len(ragged))]


@given(lists=LISTS)
def test_lists_come_back_as_they_went_in(lists):
    ragged = Ragged.from_lists(lists)
    assert as_lists(ragged) == lists
    assert ragged.counts.tolist() == [len(row) for row in lists]
    assert ragged.rows.tolist() == [number for number, row in enumerate(lists) for _ in row]


def test_tokens_keep_their_dtype():
    assert Ragged.from_lists([[1, 2], []], dtype=np.int32).take(np.array([0])).values.dtype == np.int32


@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=20))
def test_pairs_are_grouped_ascending_and_without_repeats(pairs):
    rows = np.array([row for row, _ in pairs], dtype=np.int64)
    values = np.array([value for _, value in pairs], dtype=np.int64)
    found = Ragged.from_pairs(rows, values, 5)
    assert as_lists(found) == [sorted({value for r, value in pairs if r == row}) for row in range(5)]


@given(lists=LISTS, data=st.data())
def test_taking_rows_gives_those_rows_in_that_order(lists, data):
    index = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=10)) if lists else []
    taken = Ragged.from_lists(lists).take(np.array(index, dtype=np.int64))
    assert as_lists(taken) == [lists[row] for row in index]


@given(lists=LISTS)
def test_padding_is_minus_one_up_to_the_longest_row(lists):
    padded = Ragged.from_lists(lists).padded()
    width = max([1, *map(len, lists)])
    assert padded.tolist() == [row + [-1] * (width - len(row)) for row in lists]


def test_a_given_width_is_kept():
    assert Ragged.from_lists([[3], []]).padded(width=3).tolist() == [[3, -1, -1], [-1, -1, -1]]


def test_a_width_below_the_longest_row_is_refused():
    with pytest.raises(ValueError):
        Ragged.from_lists([[3, 4]]).padded(width=1)
