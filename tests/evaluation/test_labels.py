import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.core.hits import Hits
from retrieval_cl.evaluation.labels import same_label
from retrieval_cl.evaluation.metrics import evaluate_hits
from retrieval_cl.indexing.recall import without_own


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_judgements_equal_a_loop_over_pairs(seed, has_own):
    rng = np.random.default_rng(seed)
    labels, wanted = rng.integers(-1, 4, 15), rng.integers(-1, 5, 7)
    own = rng.integers(-1, 15, 7) if has_own else None
    found = same_label(wanted, labels, own=own)
    expected = [
        [row for row in range(15) if labels[row] == wanted[query] >= 0 and (own is None or row != own[query])]
        for query in range(7)
    ]
    assert [found[query].tolist() for query in range(7)] == expected


def test_perfect_retrieval_scores_one_only_without_the_query_itself():
    labels = np.repeat(np.arange(3), 4)
    # Each row's hits: itself, then its class, then the others.
    order = np.array([np.argsort(labels != labels[row], kind="stable") for row in range(12)])
    order = np.array([[row, *(other for other in hits if other != row)] for row, hits in enumerate(order)])
    hits = Hits(np.linspace(1, 0, 12, dtype=np.float32)[None, :].repeat(12, axis=0), order)
    own = np.arange(12)
    judged = same_label(labels, labels, own=own)
    metrics = evaluate_hits(without_own(hits, own, k=11), judged, recall_cuts=(1, 3))
    assert all(values.mean() == pytest.approx(1.0) for name, values in metrics.items() if name != "recall@1")
    assert metrics["recall@1"].mean() == pytest.approx(1 / 3)
    assert evaluate_hits(hits, judged, recall_cuts=(1,))["success@1"].mean() == 0.0
