"""Nearly equal queries with other answers, against slow loops."""

import numpy as np
import pytest
from test_audit import make

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.near_queries import QueryPairs, near_texts_of, near_vectors_of, with_other_answers
from retrieval_cl.mining.shingles import ShingleSets


def words_of(seed, num=200):
    """Rows of words, many of which differ from another in a word or two; some are empty."""
    generator = np.random.default_rng(seed)
    rows = [generator.choice(40, generator.integers(0, 10), replace=False).tolist() for _ in range(num // 2)]
    for row in list(rows):
        copy = list(row)
        for _ in range(int(generator.integers(0, 3))):
            copy.insert(int(generator.integers(0, len(copy) + 1)), int(generator.integers(0, 60)))
        rows.append(copy)
    return rows


@pytest.mark.parametrize("least", [0.5, 0.8, 1.0])
def test_near_texts_equal_a_loop_over_all_pairs(least):
    rows = words_of(1)
    found = near_texts_of(ShingleSets.from_words(Ragged.from_lists(rows), width=1), least=least)
    sets, expected = [set(row) for row in rows], {}
    for right in range(len(rows)):
        for left in range(right):
            share = len(sets[left] & sets[right]) / max(1, len(sets[left] | sets[right]))
            if share >= least:
                expected[left, right] = share
    pairs = dict(zip(zip(found.left.tolist(), found.right.tolist(), strict=True), found.alike, strict=True))
    # A pair at the bound may be overlooked, one in a thousand.
    assert pairs.items() <= expected.items() and len(pairs) >= 0.99 * len(expected) > 20
    assert found.looked_at == sum(bool(row) for row in rows)


def test_texts_that_are_all_equal_are_no_quadratic_work():
    found = near_texts_of(ShingleSets.from_words(Ragged.from_lists([[1, 2]] * 600), width=1), least=0.8)
    assert 600 <= len(found.left) <= 64 * 600


def test_no_text_and_no_word_give_no_pair():
    for rows in ([], [[], []], [[3]]):
        found = near_texts_of(ShingleSets.from_words(Ragged.from_lists(rows), width=1), least=0.8)
        assert not len(found.left)


@pytest.mark.parametrize("most_pairs", [10**9, 1200])
def test_near_vectors_equal_a_loop_over_the_rows_looked_at(most_pairs):
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((60, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = near_vectors_of(vectors, least=0.9, seed=3, most_pairs=most_pairs)
    cosines = vectors.astype(np.float64) @ vectors.T
    every = {(i, j) for j in range(60) for i in range(j) if cosines[i, j] >= 0.9}
    pairs = set(zip(found.left.tolist(), found.right.tolist(), strict=True))
    assert pairs <= every and len(every) > 20
    np.testing.assert_allclose(found.alike, cosines[found.left, found.right], atol=1e-6)
    if most_pairs == 1200:
        assert found.looked_at == 20 and 0 < len(pairs) < len(every)
    else:
        assert found.looked_at == 60 and pairs == every


@pytest.mark.parametrize("seed", range(3))
def test_pairs_with_other_answers_equal_a_slow_loop(seed):
    generator = np.random.default_rng(seed)
    table = make(seed)
    num = len(table)
    groups = generator.integers(0, 30, 60)
    lists = [generator.choice(12, generator.integers(1, 3), replace=False).tolist() for _ in range(num)]
    items = [{int(groups[row]) for row in one} for one in lists]
    chosen = [(i, j) for j in range(num) for i in range(j) if generator.random() < 0.2]
    left, right = (np.array(side, dtype=np.int64) for side in zip(*chosen, strict=True))
    alike = generator.random(len(chosen)).round(1)
    found = with_other_answers(
        QueryPairs(left, right, alike, "words", 0.0, num),
        table,
        positives=Ragged.from_lists(lists),
        groups=groups,
        most=7,
    )
    kept = [(-share, i, j) for (i, j), share in zip(chosen, alike, strict=True) if items[i] != items[j]]
    assert found.pairs == len(kept) and len(kept) < len(chosen)
    assert found.queries == len({row for _, *pair in kept for row in pair})
    shown = list(zip(-found.alike, found.left.tolist(), found.right.tolist(), strict=True))
    assert shown == sorted(kept)[:7]
    for i, j, one, other in zip(found.left, found.right, found.positives, found.other_positives, strict=True):
        assert one in lists[i] and (groups[one] not in items[j] or items[i] <= items[j])
        assert other in lists[j] and (groups[other] not in items[i] or items[j] <= items[i])
    near = {i: set() for i in range(num)}
    for _, i, j in kept:
        near[i] |= items[j]
        near[j] |= items[i]
    drawn = sum(row >= 0 and groups[row] in near[i] for i in range(num) for row in table.rows[i].tolist())
    assert found.negatives == drawn > 0
