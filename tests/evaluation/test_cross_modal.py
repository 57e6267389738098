import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.evaluation import cross_modal
from retrieval_cl.evaluation.cross_modal import evaluate_cross_modal


def unit_rows(count, *, dim=4, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def on_a_circle(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def slow(queries, candidates, relevant, cuts):
    """By the definition: sort the candidates of each query, of equal scores the wrong ones first."""
    found = {f"{name}@{cut}": [] for name in ("success", "recall") for cut in cuts}
    for row, query in enumerate(queries):
        right = {int(value) for value in relevant[row]}
        scored = [
            (-float(np.float32(query.astype(float) @ one.astype(float))), number in right)
            for number, one in enumerate(candidates)
        ]
        order = [is_right for _, is_right in sorted(scored)]
        for cut in cuts:
            found[f"success@{cut}"].append(float(any(order[:cut])))
            found[f"recall@{cut}"].append(sum(order[:cut]) / max(1, len(right)))
    return found


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


# 12 images with 0 to 3 captions each, some of which match two images.
CAPTIONS = [[0, 1, 2], [3], [], [4, 5], [0, 6], [7], [8, 9, 10], [11], [12, 5], [13], [14], [15, 3, 2]]


@pytest.mark.parametrize("seed", range(4))
def test_both_ways_equal_a_slow_loop_over_several_captions_an_image(seed):
    images, captions = unit_rows(12, seed=seed), unit_rows(16, seed=seed + 100)
    there = Ragged.from_lists(CAPTIONS)
    back = Ragged.from_pairs(there.values, there.rows, 16)
    for queries, candidates, relevant in ((images, captions, there), (captions, images, back)):
        found = evaluate_cross_modal(queries, candidates, relevant)
        assert_equal(found, slow(queries, candidates, relevant, (1, 5, 10)))
    assert 0 < found["success@5"].mean() < 1 and (found["recall@5"] < found["success@5"]).any()


@pytest.mark.parametrize("seed", range(4))
def test_equal_scores_everywhere_equal_a_slow_loop(seed):
    """Few directions, many copies: nearly all ranks are decided by ties."""
    random = np.random.default_rng(seed)
    images, captions = (unit_rows(3, seed=9)[random.integers(0, 3, count)] for count in (12, 16))
    relevant = Ragged.from_lists(CAPTIONS)
    found = evaluate_cross_modal(images, captions, relevant, cuts=(1, 2, 7))
    assert_equal(found, slow(images, captions, relevant, (1, 2, 7)))


def test_of_equal_scores_the_wrong_ones_come_first():
    query, candidates = on_a_circle(0), on_a_circle(0, 0, 0, 90)
    found = evaluate_cross_modal(query, candidates, Ragged.from_lists([[1]]), cuts=(1, 2, 3))
    assert [found[f"success@{k}"][0] for k in (1, 2, 3)] == [0, 0, 1]
    both = evaluate_cross_modal(query, candidates, Ragged.from_lists([[0, 1]]), cuts=(1, 2, 3))
    assert [both[f"recall@{k}"][0] for k in (1, 2, 3)] == [0, 0.5, 1]


def test_any_right_caption_is_success_and_all_of_them_are_recall():
    query, candidates = on_a_circle(0), on_a_circle(10, 20, 30, 40)
    found = evaluate_cross_modal(query, candidates, Ragged.from_lists([[1, 3]]), cuts=(1, 2, 3, 4))
    assert [found[f"success@{k}"][0] for k in (1, 2, 3, 4)] == [0, 1, 1, 1]
    assert [found[f"recall@{k}"][0] for k in (1, 2, 3, 4)] == [0, 0.5, 0.5, 1]


def test_cut_beyond_the_candidates_takes_all_of_them():
    queries, candidates = unit_rows(3), unit_rows(4, seed=1)
    relevant = Ragged.from_lists([[0, 1, 2, 3], [2], []])
    found = evaluate_cross_modal(queries, candidates, relevant, cuts=(4, 10))
    assert found["recall@10"].tolist() == found["success@10"].tolist() == [1, 1, 0]
    assert found["recall@4"].tolist() == [1, 1, 0]


@pytest.mark.parametrize("block", [1, 16, 40, 16 * 12])
def test_blocks_of_queries_do_not_matter(monkeypatch, block):
    images, captions = unit_rows(12, dim=50), unit_rows(16, dim=50, seed=1)
    captions[7] = captions[2]
    relevant = Ragged.from_lists(CAPTIONS)
    expected = evaluate_cross_modal(images, captions, relevant)
    monkeypatch.setattr(cross_modal, "_BLOCK", block)
    assert_equal(evaluate_cross_modal(images, captions, relevant), expected)


def test_order_and_repeats_of_right_candidates_do_not_matter():
    images, captions = unit_rows(2), unit_rows(5, seed=1)
    expected = evaluate_cross_modal(images, captions, Ragged.from_lists([[0, 3], [1, 2, 4]]))
    found = evaluate_cross_modal(images, captions, Ragged.from_lists([[3, 0, 3], [4, 1, 2]]))
    assert_equal(found, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("side", ["queries", "candidates"])
def test_rows_that_are_no_numbers_are_refused(side, value):
    rows = {"queries": unit_rows(3), "candidates": unit_rows(4)}
    rows[side][2, 1] = value
    with pytest.raises(InputError, match=rf"^{side}: row 2 holds NaN or infinity; so do 1 of"):
        evaluate_cross_modal(**rows, relevant=Ragged.from_lists([[0]] * 3))
