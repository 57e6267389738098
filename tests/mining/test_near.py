"""Near duplicates of positives equal a slow loop, by text and by vector, and never come back at random."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mining_reference import random_candidates
from test_miner import mine, setting

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.near import drop_near, near_text, near_vectors
from retrieval_cl.mining.shingles import ShingleSets

few = settings(max_examples=25, deadline=None)


def slow_set(words, width=3):
    padded = list(words) + [-1] * (width - len(words)) if words else []
    return {tuple(padded[i : i + width]) for i in range(len(padded) - width + 1)}


def slow_jaccard(one, other):
    return len(one & other) / len(one | other) if one and other else 0.0


@few
@given(seed=st.integers(0, 2**32 - 1))
def test_jaccard_equals_the_loop_also_of_short_and_empty_texts(seed):
    rng = np.random.default_rng(seed)
    words = [rng.integers(0, 3, size=rng.integers(0, 8)).tolist() for _ in range(8)]
    shingles = ShingleSets.from_words(Ragged.from_lists(words))
    left, right = np.indices((8, 8)).reshape(2, -1)
    expected = [
        slow_jaccard(slow_set(words[a]), slow_set(words[b])) for a, b in zip(left, right, strict=True)
    ]
    np.testing.assert_allclose(shingles.jaccard(left, right), expected)


def test_estimate_lies_near_the_exact_similarity():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 10_000, size=200)
    words = [
        np.concatenate([base[: 200 - cut], rng.integers(0, 10_000, size=cut)]) for cut in range(0, 200, 5)
    ]
    shingles = ShingleSets.from_words(Ragged.from_lists([row.tolist() for row in words]), num_hashes=256)
    rows = np.arange(len(words))
    error = shingles.estimate(np.zeros_like(rows), rows) - shingles.jaccard(np.zeros_like(rows), rows)
    assert np.abs(error).max() < 5 * 0.5 / 16 and abs(error.mean()) < 0.03


@few
@given(seed=st.integers(0, 2**32 - 1), bound=st.sampled_from([-0.5, 0.25, 1.0]))
def test_candidates_near_a_positive_are_dropped_as_the_loop_does(seed, bound):
    rng = np.random.default_rng(seed)
    candidates = random_candidates(rng, num_passages=12)
    positives = Ragged.from_lists([rng.choice(12, size=rng.integers(1, 4)).tolist() for _ in range(4)])
    vectors = np.eye(4, dtype=np.float32)[rng.integers(0, 4, size=12)] * rng.choice([-1, 1], size=(12, 1))
    vectors = vectors.astype(np.float32)
    kept = drop_near(candidates, positives=positives, near=near_vectors(vectors, cosine=bound))
    for query, column in np.ndindex(kept.shape):
        row = candidates.rows[query, column]
        near = any(vectors[row] @ vectors[positive] >= bound for positive in positives[query])
        assert kept[query, column] == (candidates.kept[query, column] and not near)


def test_near_texts_of_a_positive_are_neither_drawn_nor_filled_in():
    words = [[1, 2, 3, 4, 5, 6]] + [[1, 2, 3, 4, 5, 7]] * 5 + [[9, 8, 7], [6, 5, 4]]
    vectors = np.eye(8, dtype=np.float32)
    shingles = ShingleSets.from_words(Ragged.from_lists(words))
    assert near_text(shingles, threshold=0.6)(np.array([0, 0]), np.array([1, 6])).tolist() == [True, False]
    config = MiningConfig(depth=2, num_negatives=2, relative_margin=None, near_text=0.6, shortage="random")
    table, counts = mine(
        vectors[:1],
        vectors,
        queries=np.array([0]),
        positives=Ragged.from_lists([[0]]),
        groups=np.arange(8),
        config=config,
        seed=0,
        round=0,
        shingles=shingles,
    )
    assert sorted(table.rows[0].tolist()) == [6, 7]
    assert counts.removed["near_text"] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"near_text": 0.8}, "given no shingles"),
        ({"reranker": "some/model"}, "no reranker was passed"),
        ({"second_model": "some/model"}, "gave no candidates 'second'"),
    ],
)
def test_setting_without_what_it_needs_is_refused(values, message):
    query_vectors, passage_vectors, relations = setting(np.random.default_rng(0))
    with pytest.raises(InputError, match=message):
        mine(query_vectors, passage_vectors, config=MiningConfig(**values), **relations)
