"""Suspects and near pairs against slow loops."""

import numpy as np
import pytest
from test_audit import make

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.audit_pairs import (
    by_score,
    by_similarity,
    near_within,
    text_similarity,
    vector_similarity,
)


@pytest.fixture(params=range(3))
def case(request):
    """A table, positives, their scores (of either sign), and unit vectors of 60 passages."""
    generator = np.random.default_rng(request.param)
    table = make(request.param)
    lists = [
        generator.choice(60, generator.integers(1, 4), replace=False).tolist() for _ in range(len(table))
    ]
    positives = Ragged.from_lists(lists)
    scores = generator.normal(0.5, 1, len(positives.values)).astype(np.float32)
    vectors = generator.standard_normal((60, 3)).astype(np.float32)
    return table, positives, scores, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_suspects_by_score_equal_a_slow_loop(case):
    table, positives, positive_scores, _ = case
    found = by_score(table, table.scores, positives=positives, positive_scores=positive_scores, most=12)
    best, above = [], 0
    for line in range(len(table)):
        part = slice(positives.offsets[line], positives.offsets[line + 1])
        limit = float(max(positive_scores[part]))
        own = positives.values[part][int(np.argmax(positive_scores[part]))]
        ratios = [
            (1 + (float(score) - limit) / abs(limit), int(row))
            for row, score in zip(table.rows[line], table.scores[line], strict=True)
            if row >= 0
        ]
        above += sum(ratio >= 1 for ratio, _ in ratios)
        if ratios:
            ratio, row = max(ratios, key=lambda one: one[0])
            score = float(max(table.scores[line][table.rows[line] >= 0]))
            best.append((score, line, row, int(own), ratio, limit))
    best.sort(key=lambda one: (-one[0], one[1]))
    assert found.count == above > 0
    assert found.measure.tolist() == pytest.approx([one[4] for one in best[:12]])
    assert found.scores.tolist() == pytest.approx(np.array([(one[0], one[5]) for one in best[:12]]))
    assert list(zip(found.lines, found.rows, found.positives, strict=True)) == [one[1:4] for one in best[:12]]


def test_a_query_that_the_model_knows_nothing_of_is_not_the_first_suspect():
    table = make(0, num=2)
    table.scores[:] = np.where(table.rows >= 0, np.array([[0.05], [0.6]], dtype=np.float32), -np.inf)
    lists = Ragged.from_lists([[1], [2]])
    scores = np.array([0.001, 0.65], dtype=np.float32)
    found = by_score(table, table.scores, positives=lists, positive_scores=scores, most=2)
    assert found.lines.tolist() == [1, 0] and found.measure[1] > 10


def test_a_positive_of_score_0_breaks_nothing():
    table = make(0, num=2)
    scores = np.zeros(2, dtype=np.float32)
    found = by_score(
        table, table.scores, positives=Ragged.from_lists([[1], [2]]), positive_scores=scores, most=5
    )
    assert np.isfinite(found.measure).all() and found.count == int((table.scores[table.rows >= 0] >= 0).sum())


def test_suspects_by_similarity_equal_a_slow_loop(case):
    table, positives, _, vectors = case
    similarity = vector_similarity(vectors)
    found = by_similarity(table, similarity, positives=positives, least=0.9, most=15)
    near = []
    for line in range(len(table)):
        for row in table.rows[line]:
            if row >= 0:
                alike = [(float(vectors[row] @ vectors[one]), int(one)) for one in positives[line]]
                value, against = max(alike)
                if value >= 0.9:
                    near.append((value, line, int(row), against))
    near.sort(key=lambda one: (-round(one[0], 5), one[1], one[2]))
    assert found.count == len(near) >= 15
    assert found.measure.tolist() == pytest.approx([one[0] for one in near[:15]], abs=1e-5)
    exact = [one[1:] for one in near[:15] if one[0] < 0.99999]
    ours = list(zip(found.lines, found.rows, found.positives, strict=True))
    assert set(exact) <= set(ours) | {one[1:] for one in near[13:]}


def test_near_pairs_within_queries_equal_a_slow_loop(case):
    table, _, _, vectors = case
    found = near_within(table, vector_similarity(vectors), least=0.8, seed=0)
    pairs = [
        line
        for line in range(len(table))
        for left in range(5)
        for right in range(left + 1, 5)
        if min(table.rows[line, left], table.rows[line, right]) >= 0
        and vectors[table.rows[line, left]] @ vectors[table.rows[line, right]] >= 0.8
    ]
    assert (found.pairs, found.queries, found.looked_at) == (len(pairs), len(set(pairs)), 40)
    assert pairs


def test_near_pairs_of_a_large_table_are_those_of_a_seeded_sample(case):
    table, _, _, vectors = case
    one, same, other = (
        near_within(table, vector_similarity(vectors), least=0.5, seed=seed, most_pairs=100)
        for seed in (0, 0, 1)
    )
    assert one == same and one.looked_at == other.looked_at == 10
    assert 0 < one.queries <= 10


def test_text_similarity_is_jaccard_of_word_shingles():
    words = Ragged.from_lists([[1, 2, 3, 4], [1, 2, 3, 4, 5]])
    similarity = text_similarity(words, np.array([1, 3]))
    left, right = np.array([1, 1]), np.array([3, 1])
    assert similarity(left, right).tolist() == [2 / 3, 1.0]
