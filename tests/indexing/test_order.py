import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.indexing import order

floats = st.floats(width=32, allow_nan=False)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(floats, st.integers(0, order.LAST_ROW - 1)), min_size=1, max_size=20))
def test_keys_sort_by_score_then_lower_row_and_unpack_to_what_was_packed(pairs):
    scores = torch.tensor([score for score, _ in pairs], dtype=torch.float32)
    rows = torch.tensor([row for _, row in pairs])
    keys = order.pack(scores, rows)
    assert (keys > order.EMPTY).all()
    by_key = sorted(range(len(pairs)), key=lambda i: -int(keys[i]))
    by_pair = sorted(range(len(pairs)), key=lambda i: (-float(scores[i]), int(rows[i])))
    assert [pairs[i] for i in by_key] == [pairs[i] for i in by_pair]
    back, back_rows = order.unpack(keys)
    assert torch.equal(back, scores) and torch.equal(back_rows, rows)


def test_zero_and_minus_zero_tie():
    keys = order.pack(torch.tensor([0.0, -0.0]), torch.tensor([4, 4]))
    assert keys[0] == keys[1]


def test_empty_key_is_no_hit():
    scores, rows = order.unpack(torch.tensor([order.EMPTY]))
    assert scores.item() == -torch.inf and rows.item() == -1


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 64, 385])
def test_dot_does_not_depend_on_the_shape_it_is_computed_in(dim):
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(50, dim, generator=generator)
    right = torch.randn(50, dim, generator=generator)
    whole = order.dot(left, right)
    single = torch.stack([order.dot(left[i], right[i]) for i in range(50)])
    square = order.dot(left[:, None], right[None]).diagonal()
    assert torch.equal(whole, single) and torch.equal(whole, square)
    torch.testing.assert_close(whole.double(), (left.double() * right.double()).sum(1), rtol=1e-4, atol=1e-5)


def test_dot_of_no_columns_is_zero():
    assert order.dot(torch.empty(2, 0), torch.empty(2, 0)).tolist() == [0.0, 0.0]


def test_dot_leaves_its_arguments_alone():
    left = torch.ones(2, 4)
    order.dot(left, left)
    assert torch.equal(left, torch.ones(2, 4))


def test_best_fills_up_with_empty():
    keys = order.best(torch.tensor([[3, 9, 5]]), k=5)
    np.testing.assert_array_equal(keys.numpy(), [[9, 5, 3, order.EMPTY, order.EMPTY]])
