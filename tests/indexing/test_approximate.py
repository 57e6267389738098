import json

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing import exact
from retrieval_cl.indexing.approximate import FaissSettings, build_approximate, cheapest, search_near
from retrieval_cl.indexing.folder import open_index, write_index
from retrieval_cl.indexing.recall import Truth

pytest.importorskip("faiss")


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def clusters():
    """20,000 vectors in 200 clusters, and 400 queries of the same clusters."""
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((200, 16)))
    rows = unit(centres[rng.integers(0, 200, 20_400)] + 0.6 * unit(rng.standard_normal((20_400, 16))))
    return rows[:20_000], rows[20_000:]


@pytest.fixture
def write(tmp_path, clusters):
    def write(**changes):
        vectors = clusters[0][:3000]
        parts = {
            "vectors": vectors,
            "ids": [str(n) for n in range(3000)],
            "titles": [""] * 3000,
            "texts": ["x"] * 3000,
            "fingerprint": "one",
        }
        write_index(tmp_path / "index", **(parts | changes))
        return tmp_path / "index"

    return write


@pytest.mark.parametrize(
    ("least", "start", "most"), [(1, 1, 1), (1, 1, 64), (5, 1, 64), (64, 1, 64), (37, 3, 50)]
)
def test_cheapest_is_the_first_that_reaches_and_is_asked_little(least, start, most):
    asked = []

    def reaches(value):
        asked.append(value)
        return value >= least

    assert cheapest(reaches, start=start, most=most) == max(least, start)
    assert len(asked) <= 2 * most.bit_length() and len(set(asked)) == len(asked)
    assert cheapest(lambda value: False, start=start, most=most) is None


@pytest.mark.parametrize("factory", ["IVF64,SQ8", "HNSW16", "PCA15,IVF64,SQ8"])
def test_tuned_index_reaches_its_target_and_no_less_would_do(clusters, factory):
    vectors, queries = clusters
    built = build_approximate(vectors, FaissSettings(factory, target_recall=0.9, k=10), queries=queries)
    truth = Truth.find(vectors, queries=queries, k=10)
    knob, per_hit = built.index.knob, built.settings.per_hit
    assert built.recall.mean >= 0.9 and (knob.name, knob.value) == (built.settings.knob, built.settings.value)
    # Measured anew, by what is kept.
    again = truth.compare(search_near(built.index, queries, vectors, k=11, per_hit=per_hit))
    assert again == built.recall and again.num_queries == 400
    if knob.value > 1:
        built.index.turn(knob.value - 1)
        assert truth.compare(search_near(built.index, queries, vectors, k=11, per_hit=per_hit)).mean < 0.9


def test_coarse_codes_reach_a_target_by_more_candidates(clusters):
    vectors, queries = clusters
    built = build_approximate(vectors, FaissSettings("SQ4", target_recall=0.9), queries=queries)
    coarse = build_approximate(vectors, FaissSettings("PCA12,SQ4", target_recall=0.9), queries=queries)
    assert built.settings.per_hit == 1 < coarse.settings.per_hit
    assert coarse.recall.mean >= 0.9


def test_target_out_of_reach_is_one_line_and_leaves_nothing(write, tmp_path):
    with pytest.raises(
        InputError, match=r"'PCA1,Flat' reaches recall@10 0\.\d+ \[.*the target is 0.95: take"
    ) as one:
        write(faiss=FaissSettings("PCA1,Flat", target_recall=0.95))
    assert "\n" not in str(one.value)
    assert list(tmp_path.iterdir()) == []


def test_manifest_holds_the_numbers(write, clusters):
    folder = write(faiss=FaissSettings("IVF32,Flat", target_recall=0.9, k=5), query_vectors=clusters[1])
    described = json.loads((folder / "manifest.json").read_text())["faiss"]
    recall = described["recall"]
    assert (recall["k"], recall["num_queries"], recall["queries"]) == (5, 400, "given")
    assert recall["target"] == 0.9 <= recall["mean"] and recall["low"] < recall["mean"] < recall["high"]
    assert set(described["search"]) == {"nprobe", "candidates_per_hit"}
    assert (described["factory"], described["reason"]) == ("IVF32,Flat", "as given")
    standing_in = json.loads((write(faiss=FaissSettings("IVF32,Flat")) / "manifest.json").read_text())[
        "faiss"
    ]
    assert (standing_in["recall"]["queries"], standing_in["recall"]["num_queries"]) == ("corpus", 2000)


def test_opened_index_searches_with_the_tuned_settings(write, clusters):
    vectors, queries = clusters[0][:3000], clusters[1]
    folder = write(faiss=FaissSettings("IVF32,SQ4", target_recall=0.9), query_vectors=queries)
    index = open_index(folder)
    described = index.manifest["faiss"]
    assert index._faiss.knob.value == described["search"]["nprobe"]
    hits = index.search(queries, k=11)
    assert Truth.find(vectors, queries=queries, k=10).compare(hits).mean == described["recall"]["mean"]


def test_copies_beyond_k_do_not_hide_the_recall(clusters):
    vectors = np.concatenate([np.repeat(clusters[0][:5], 60, axis=0), clusters[0][:500]])
    built = build_approximate(vectors, FaissSettings("IVF16,Flat", target_recall=0.99))
    assert built.recall.mean >= 0.99


def test_settings_repeat_with_the_seed(clusters):
    vectors, queries = clusters
    settings = FaissSettings("IVF64,SQ8", target_recall=0.9, seed=3)
    one, other = (build_approximate(vectors[:5000], settings, queries=queries) for _ in range(2))
    assert one.to_json() == other.to_json()


def test_near_search_gives_exact_scores_in_exact_order(clusters):
    vectors, queries = clusters[0][:500], clusters[1][:20]
    built = build_approximate(vectors, FaissSettings("SQ8"))
    found = search_near(built.index, queries, vectors, k=600)
    whole = exact.search(queries, vectors, k=600)
    np.testing.assert_array_equal(found.rows, whole.rows)
    np.testing.assert_array_equal(found.scores, whole.scores)
