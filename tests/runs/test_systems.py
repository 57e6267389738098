"""BM25 tuned on dev, dense search, their fusion, and the table of all of them."""

import json

import numpy as np
import pytest

from retrieval_cl.evaluation.results import read_per_query
from retrieval_cl.indexing.fusion import reciprocal_rank_fusion
from retrieval_cl.runs.config import EvaluationConfig, IndexConfig
from retrieval_cl.runs.held_out import HeldOut
from retrieval_cl.runs.judged import judged_queries
from retrieval_cl.runs.systems import DEFAULT_B, DEFAULT_K1, search_vectors, weigh_words


@pytest.fixture
def held_out(tiny_data, make_config):
    return HeldOut.of(tiny_data, make_config())


def test_bm25_is_tuned_on_dev_unless_it_is_set_or_there_is_none(tiny_data):
    words = weigh_words(tiny_data.passages, data=tiny_data, config=IndexConfig())
    assert words.tuned_on == len(tiny_data.splits["dev"].judged_queries)
    half = weigh_words(tiny_data.passages, data=tiny_data, config=IndexConfig(k1=1.7))
    assert half.lexical.k1 == 1.7 and half.tuned_on > 0
    given = weigh_words(tiny_data.passages, data=tiny_data, config=IndexConfig(k1=1.7, b=0.3))
    assert (given.lexical.k1, given.lexical.b, given.tuned_on) == (1.7, 0.3, 0)
    plain = weigh_words(tiny_data.passages, config=IndexConfig())
    assert (plain.lexical.k1, plain.lexical.b) == (DEFAULT_K1, DEFAULT_B)
    assert plain.describe().endswith("(not tuned)") and "dev queries" in words.describe()


def test_dense_search_is_the_cosine_of_all_pairs(tiny_data, encoder):
    judged = judged_queries(tiny_data, "test")
    hits = search_vectors(encoder, tiny_data, judged, k=48)
    passages = encoder.encode(tiny_data.passages.full(), kind="passage")
    texts = tiny_data.queries.full()
    queries = encoder.encode([texts[row] for row in judged.queries.tolist()], kind="query")
    scores = queries @ passages.T
    found = np.take_along_axis(scores, hits.rows, axis=1)
    assert np.allclose(found, hits.scores, atol=1e-6)
    assert np.allclose(np.sort(scores, axis=1)[:, ::-1], hits.scores, atol=1e-6)


def test_systems_are_tested_pair_by_pair_and_written(held_out, encoder, tiny_data, tmp_path):
    dense = held_out.search(encoder)
    board = held_out.compare({"before": dense, "after": dense}, best="after")
    assert list(board.results) == ["bm25", "before", "after", "hybrid"]
    assert set(board.pairs) == {
        ("after", "bm25"),
        ("after", "before"),
        ("hybrid", "bm25"),
        ("hybrid", "after"),
    }
    assert board.pairs["after", "before"]["recall@10"].p == 1.0
    fused = reciprocal_rank_fusion((dense, held_out.bm25), k=100, constant=60)
    assert np.array_equal(board.hits["hybrid"].rows, fused.rows)
    json.dumps(board.to_json(), allow_nan=False)
    board.write_per_query(tmp_path / "per_query.jsonl", tiny_data)
    ids, systems = read_per_query(tmp_path / "per_query.jsonl")
    assert ids == [tiny_data.queries.ids[row] for row in held_out.judged.queries.tolist()]
    for system in systems:
        mean = board.to_json()["systems"][system.name]["recall@50"]["mean"]
        assert mean == system.metrics["recall@50"].mean()
    assert "after - before: recall@10 +0.000" in board.text()


def test_depth_and_constant_of_the_hybrid_come_from_the_config(tiny_data, make_config, encoder):
    config = make_config("evaluation.depth=120", "evaluation.rank_constant=1")
    held_out = HeldOut.of(tiny_data, config)
    dense = held_out.search(encoder)
    assert dense.rows.shape[1] == held_out.bm25.rows.shape[1] == 120
    board = held_out.compare({"dense": dense}, best="dense")
    expected = reciprocal_rank_fusion((dense, held_out.bm25), k=120, constant=1)
    assert np.array_equal(board.hits["hybrid"].scores, expected.scores)
    assert EvaluationConfig().rank_constant == 60
