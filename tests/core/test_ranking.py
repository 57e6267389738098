import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_loops import slow_metrics

from retrieval_cl.core.ranking import count_relevant, gains, mrr_at_k, ndcg_at_k, recall_at_k, success_at_k
from retrieval_cl.core.relations import Ragged


def measure(rows, judgements, k):
    """All metrics of lists of rows and of dicts row -> grade."""
    relevant = Ragged.from_lists([list(judged) for judged in judgements])
    grades = Ragged.from_lists([list(judged.values()) for judged in judgements])
    found = gains(np.asarray(rows, dtype=np.int64), relevant, grades)
    return {
        "recall": recall_at_k(found, count_relevant(grades), k=k),
        "success": success_at_k(found, k=k),
        "mrr": mrr_at_k(found, k=k),
        "ndcg": ndcg_at_k(found, grades, k=k),
    }


def draw_run(seed, *, num_queries=20, num_passages=15, depth=8):
    random = np.random.default_rng(seed)
    rows = np.stack([random.permutation(num_passages)[:depth] for _ in range(num_queries)])
    judgements = []
    for _ in range(num_queries):
        judged = random.permutation(num_passages)[: random.integers(0, 7)]
        judgements.append({int(row): int(random.integers(-1, 4)) for row in judged})
    return rows, judgements


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 12), holes=st.booleans())
def test_metrics_equal_a_slow_loop(seed, k, holes):
    rows, judgements = draw_run(seed)
    if holes:
        rows[:, 5:] = -1
    found = measure(rows, judgements, k)
    for query, judged in enumerate(judgements):
        wanted = slow_metrics([int(row) for row in rows[query] if row != -1], judged, k)
        for name, values in found.items():
            assert values[query] == pytest.approx(wanted[name], abs=1e-14), name


def test_metrics_equal_pytrec_eval():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    rows, judgements = draw_run(1, num_queries=200)
    qrels = {
        f"q{i}": {f"d{row}": grade for row, grade in judged.items()} for i, judged in enumerate(judgements)
    }
    run = {f"q{i}": {f"d{row}": 100.0 - rank for rank, row in enumerate(top)} for i, top in enumerate(rows)}
    measures = {"recall_5", "success_5", "ndcg_cut_5", "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    ours, whole = measure(rows, judgements, 5), measure(rows, judgements, 100)
    compared = 0
    for query in range(200):
        values = theirs.get(f"q{query}")
        if values is None:
            assert not judgements[query]
            continue
        compared += 1
        assert ours["recall"][query] == pytest.approx(values["recall_5"], abs=1e-12)
        assert ours["success"][query] == values["success_5"]
        assert ours["ndcg"][query] == pytest.approx(values["ndcg_cut_5"], abs=1e-12)
        assert whole["mrr"][query] == pytest.approx(values["recip_rank"], abs=1e-12)
    assert compared > 150


def test_recall_divides_by_all_relevant_passages_and_success_does_not():
    found = measure([[0, 9, 8, 7]], [{row: 1 for row in range(4)}], 2)
    assert found["recall"].tolist() == [0.25]
    assert found["success"].tolist() == [1.0]


def test_a_query_without_a_relevant_passage_scores_0():
    found = measure([[0, 1], [2, 3]], [{}, {2: 0, 3: -1}], 2)
    assert all(values.tolist() == [0.0, 0.0] for values in found.values())


def test_minus_one_is_no_hit_even_where_the_last_passage_is_relevant():
    found = measure([[-1, 0]], [{3: 1}], 2)
    assert all(values.tolist() == [0.0] for values in found.values())


def test_gains_of_ndcg_are_linear_and_its_ideal_is_cut_at_k():
    found = measure([[0, 1]], [{0: 1, 1: 3, 2: 2}], 2)
    wanted = (1 + 3 / np.log2(3)) / (3 + 2 / np.log2(3))
    assert found["ndcg"].tolist() == pytest.approx([wanted])


def test_mrr_sees_nothing_behind_rank_k():
    run = ([[5, 6, 0]], [{0: 1}])
    assert measure(*run, 3)["mrr"].tolist() == pytest.approx([1 / 3])
    assert measure(*run, 2)["mrr"].tolist() == [0.0]


def test_a_ranking_shorter_than_k_is_taken_as_it_is():
    assert measure([[0]], [{0: 1, 1: 1}], 10)["recall"].tolist() == [0.5]
    empty = measure(np.zeros((1, 0), dtype=np.int64), [{0: 1}], 10)
    assert all(values.tolist() == [0.0] for values in empty.values())


def test_the_order_of_judgements_does_not_matter():
    rows = np.array([[4, 2, 7]])
    for judged in ({2: 1, 4: 3}, {4: 3, 2: 1}):
        relevant, grades = Ragged.from_lists([list(judged)]), Ragged.from_lists([list(judged.values())])
        assert gains(rows, relevant, grades).tolist() == [[3, 1, 0]]
