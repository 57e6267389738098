import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.evaluation.metrics import evaluate_hits, metric_names


def make_hits(rows):
    rows = np.array(rows, dtype=np.int64)
    return Hits(np.where(rows < 0, -np.inf, -np.arange(rows.shape[1])).astype(np.float32), rows)


@pytest.fixture(scope="module")
def searched():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(150)[:100] for _ in range(60)])
    rows[3, 40:] = -1
    rows[4] = -1
    relevant = [sorted(rng.permutation(150)[: rng.integers(0, 14)].tolist()) for _ in range(60)]
    grades = [[int(rng.integers(0, 4)) for _ in row] for row in relevant]
    return make_hits(rows), Ragged.from_lists(relevant), Ragged.from_lists(grades)


def slow_metrics(found, relevant):
    good = {row for row, grade in relevant.items() if grade >= 1}
    out = {}
    for k in (1, 5, 10, 50, 100):
        hit = good & set(found[:k])
        out[f"recall@{k}"] = len(hit) / len(good) if good else 0.0
        out[f"success@{k}"] = float(bool(hit))
    ranks = [rank for rank, row in enumerate(found[:10], start=1) if row in good]
    out["mrr@10"] = 1 / ranks[0] if ranks else 0.0
    gained = sum(relevant.get(row, 0) / np.log2(rank + 1) for rank, row in enumerate(found[:10], start=1))
    best = sorted(relevant.values(), reverse=True)[:10]
    ideal = sum(grade / np.log2(rank + 1) for rank, grade in enumerate(best, start=1))
    out["ndcg@10"] = gained / ideal if ideal else 0.0
    return out


def test_every_metric_equals_slow_loop(searched):
    hits, relevant, grades = searched
    metrics = evaluate_hits(hits, relevant, grades=grades)
    assert list(metrics) == metric_names()
    for query in range(60):
        judged = dict(zip(relevant[query].tolist(), grades[query].tolist(), strict=True))
        expected = slow_metrics([row for row in hits.rows[query].tolist() if row >= 0], judged)
        assert {name: values[query] for name, values in metrics.items()} == pytest.approx(expected)


def test_metrics_equal_trec_eval(searched):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    hits, relevant, grades = searched
    names = {
        "recall@10": "recall_10",
        "recall@100": "recall_100",
        "success@5": "success_5",
        "ndcg@10": "ndcg_cut_10",
    }
    qrels = {
        str(q): {str(p): g for p, g in zip(relevant[q].tolist(), grades[q].tolist(), strict=True)}
        for q in range(60)
        if len(relevant[q])
    }
    run = {q: {str(p): -float(i) for i, p in enumerate(hits.rows[int(q)].tolist()) if p >= 0} for q in qrels}
    peer = pytrec_eval.RelevanceEvaluator(qrels, {"recall", "success", "ndcg_cut"}).evaluate(run)
    metrics = evaluate_hits(hits, relevant, grades=grades)
    compared = 0
    for query, values in peer.items():
        for ours, theirs in names.items():
            assert metrics[ours][int(query)] == pytest.approx(values[theirs]), (query, ours)
            compared += 1
    assert compared > 150


def test_without_grades_every_judged_passage_is_relevant():
    hits = make_hits([[7, *range(100, 199)]])
    metrics = evaluate_hits(hits, Ragged.from_lists([[7, 3]]))
    assert metrics["recall@1"][0] == 0.5 and metrics["success@1"][0] == 1.0 and metrics["mrr@10"][0] == 1.0
    assert metrics["ndcg@10"][0] == pytest.approx(1 / (1 + 1 / np.log2(3)))


def test_query_without_relevant_passage_scores_zero():
    metrics = evaluate_hits(make_hits([list(range(100))]), Ragged.from_lists([[]]))
    assert all(values.tolist() == [0.0] for values in metrics.values())


def test_too_few_hits_for_a_cut_is_an_error():
    with pytest.raises(InputError, match="50 hits a query; recall@100 needs a search with k = 100"):
        evaluate_hits(make_hits([list(range(50))]), Ragged.from_lists([[1]]))
