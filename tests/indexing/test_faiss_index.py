import sys

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing import exact
from retrieval_cl.indexing.faiss_index import FaissIndex


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


def test_auto_of_a_small_corpus_is_exact(vectors):
    assert FaissIndex.build(vectors, factory="auto").knob is None


@pytest.mark.parametrize(
    ("factory", "name", "most"),
    [
        ("IVF8,SQ8", "nprobe", 8),
        ("HNSW8", "efSearch", 500),
        ("PCA8,HNSW8", "efSearch", 500),
        ("IVF8,SQ8,RFlat", "nprobe", 8),
        ("HNSW8,RFlat", "efSearch", 500),
    ],
)
def test_knob_widens_the_search(vectors, factory, name, most):
    index = FaissIndex.build(vectors, factory=factory)
    assert (index.knob.name, index.knob.most) == (name, most)
    index.turn(3)
    assert index.knob.value == 3
    few = index.search(vectors[:50], k=10).rows
    index.turn(most)
    exactly = exact.search(vectors[:50], vectors, k=10).rows
    assert share(index.search(vectors[:50], k=10).rows, exactly) > share(few, exactly) - 1e-9


def share(rows, right):
    return np.mean([len(set(a) & set(b)) for a, b in zip(rows.tolist(), right.tolist(), strict=True)])


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF4,PQ4x4", "SQ8", "HNSW8"])
def test_index_of_one_thread_repeats_to_the_byte(vectors, factory, tmp_path, threads):
    threads(1)
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        FaissIndex.build(vectors, factory=factory, seed=4).save(file)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8", "SQ8"])
def test_index_without_a_graph_repeats_with_two_threads(vectors, factory, tmp_path, threads):
    threads(2)
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        FaissIndex.build(vectors, factory=factory, seed=4).save(file)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.fixture
def threads():
    faiss = pytest.importorskip("faiss")
    before = faiss.omp_get_max_threads()
    yield faiss.omp_set_num_threads
    faiss.omp_set_num_threads(before)


def test_another_seed_trains_other_lists(vectors, tmp_path):
    for seed in (0, 1):
        FaissIndex.build(vectors, factory="IVF8,Flat", seed=seed).save(tmp_path / str(seed))
    assert (tmp_path / "0").read_bytes() != (tmp_path / "1").read_bytes()


@pytest.mark.parametrize("factory", ["Flat", "IVF8,SQ8", "HNSW8"])
def test_rows_of_shards_on_disk_give_the_index_of_one_array(vectors, factory, tmp_path, threads):
    threads(1)
    np.save(tmp_path / "a.npy", vectors[:200])
    np.save(tmp_path / "b.npy", vectors[200:])
    shards = [np.load(tmp_path / name, mmap_mode="r") for name in ("a.npy", "b.npy")]
    FaissIndex.build(vectors, factory=factory).save(tmp_path / "one")
    FaissIndex.build(shards, factory=factory).save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_half_precision_rows_are_taken(vectors):
    hits = FaissIndex.build(vectors.astype(np.float16), factory="Flat").search(vectors[:20], k=1)
    assert hits.rows[:, 0].tolist() == list(range(20))


def test_blocks_of_a_small_memory_give_the_same_index(vectors, tmp_path, threads):
    threads(1)
    many = np.tile(vectors, (8, 1))
    for name, memory in (("one", None), ("other", 2**20)):
        FaissIndex.build(many, factory="SQfp16", memory_bytes=memory).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_index_beyond_its_memory_is_refused_before_it_is_built(vectors):
    many = np.tile(vectors, (10, 1))
    FaissIndex.build(many, factory="Flat", memory_bytes=5000 * 64 * 2 + 1000)
    with pytest.raises(
        InputError, match=r"'Flat' for 5000.*building it takes 0.6 MiB, the memory is 0.5 MiB"
    ):
        FaissIndex.build(many, factory="Flat", memory_bytes=2**19)
    with pytest.raises(InputError, match="64 rows to train on take"):
        FaissIndex.build(many, factory="IVF64,Flat", memory_bytes=2**13)


def test_no_vectors_are_an_input_error(vectors):
    with pytest.raises(InputError, match="no vectors"):
        FaissIndex.build(vectors[:0], factory="Flat")


def test_bad_factory_is_named(vectors):
    with pytest.raises(InputError, match="faiss factory 'NoSuchThing' for 500 vectors of dim 16"):
        FaissIndex.build(vectors, factory="NoSuchThing")


def test_too_few_training_rows_are_an_input_error(vectors):
    with pytest.raises(
        InputError, match=r"'IVF1024,Flat' for 500.*1024 lists need at least 1024 rows.*at most 12 lists"
    ):
        FaissIndex.build(vectors, factory="IVF1024,Flat")


def test_broken_file_is_named(tmp_path):
    (tmp_path / "index.faiss").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"index\.faiss: no readable faiss index"):
        FaissIndex.load(tmp_path / "index.faiss")


def test_missing_faiss_names_the_extras(vectors, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"retrieval-cl\[cpu\] or retrieval-cl\[gpu\].*exact search"):
        FaissIndex.build(vectors, factory="Flat")
