import sys

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing import exact
from retrieval_cl.indexing.faiss_index import FaissIndex, resolve


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 16), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_flat_finds_what_exact_search_finds(vectors):
    hits = FaissIndex.build(vectors, factory="Flat").search(vectors[:20], k=5)
    exactly = exact.search(vectors[:20], vectors, k=5)
    np.testing.assert_array_equal(hits.rows, exactly.rows)
    np.testing.assert_allclose(hits.scores, exactly.scores, atol=1e-6)


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "HNSW8", "SQfp16", "PCA14,Flat"])
def test_saved_index_gives_the_same_hits(vectors, factory, tmp_path):
    index = FaissIndex.build(vectors, factory=factory)
    index.save(tmp_path / "index.faiss")
    again = FaissIndex.load(tmp_path / "index.faiss")
    assert len(again) == 500 and again.dim == 16
    before, after = index.search(vectors[:20], k=5), again.search(vectors[:20], k=5)
    np.testing.assert_array_equal(before.rows, after.rows)
    np.testing.assert_array_equal(before.scores, after.scores)
    assert (before.rows[:, 0] == np.arange(20)).mean() > 0.9


def test_k_beyond_corpus_is_minus_one_with_minus_infinity(vectors):
    hits = FaissIndex.build(vectors[:3], factory="Flat").search(vectors[:1], k=5)
    assert hits.rows[0, 3:].tolist() == [-1, -1]
    assert hits.scores[0, 3:].tolist() == [-np.inf, -np.inf]


def test_auto_is_flat_for_small_corpora_and_a_graph_for_large():
    assert resolve("auto", num_rows=999_999) == "Flat"
    assert resolve("auto", num_rows=1_000_000) == "HNSW32,SQfp16"
    assert resolve("IVF8,Flat", num_rows=5) == "IVF8,Flat"


def test_bad_factory_is_named(vectors):
    with pytest.raises(InputError, match="faiss factory 'NoSuchThing' for 500 vectors of dim 16"):
        FaissIndex.build(vectors, factory="NoSuchThing")


def test_too_few_training_rows_are_an_input_error(vectors):
    with pytest.raises(InputError, match="faiss factory 'IVF1024,Flat'"):
        FaissIndex.build(vectors, factory="IVF1024,Flat")


def test_broken_file_is_named(tmp_path):
    (tmp_path / "index.faiss").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"index\.faiss: no readable faiss index"):
        FaissIndex.load(tmp_path / "index.faiss")


def test_missing_faiss_names_the_extras(vectors, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"retrieval-cl\[cpu\] or retrieval-cl\[gpu\].*exact search"):
        FaissIndex.build(vectors, factory="Flat")
