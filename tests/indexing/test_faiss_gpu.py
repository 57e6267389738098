"""A stand-in for the few functions of a GPU build: what is asked of it, and what is said where it cannot."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing import faiss_gpu
from retrieval_cl.indexing.approximate import FaissSettings, build_approximate
from retrieval_cl.indexing.faiss_index import FaissIndex
from retrieval_cl.indexing.folder import open_index, write_index

faiss = pytest.importorskip("faiss")


@pytest.fixture
def vectors():
    return np.random.default_rng(0).standard_normal((3000, 8), np.float32)


@pytest.fixture
def gpus(monkeypatch):
    """faiss that sees GPUs; copies to them are the indexes themselves, counted."""

    def see(number, *, options="GENERIC AVX2 GPU ", error=None):
        copies = []

        def copy(index, co, ngpu):
            if error:
                raise RuntimeError(f"Error in x\nError: {error}")
            copies.append((type(index).__name__, ngpu, co.shard, co.useFloat16))
            return faiss.clone_index(index)

        monkeypatch.setattr(faiss, "get_num_gpus", lambda: number)
        monkeypatch.setattr(faiss, "get_compile_options", lambda: options)
        monkeypatch.setattr(faiss, "GpuMultipleClonerOptions", SimpleNamespace, raising=False)
        monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", copy)
        monkeypatch.setattr(faiss, "GpuParameterSpace", faiss.ParameterSpace, raising=False)
        return copies

    return see


def test_one_gpu_holds_all_and_several_hold_shares(vectors, gpus):
    index = FaissIndex.build(vectors, factory="Flat")
    copies = gpus(4)
    placed = [index.on_gpus(num_gpus=1, fp16=False), index.on_gpus(num_gpus=3), index.on_gpus()]
    assert [each[1:] for each in copies] == [(1, False, False), (3, True, True), (4, True, True)]
    for each in placed:
        assert (
            each.search(vectors[:9], k=1).rows[:, 0].tolist()
            == index.search(vectors[:9], k=1).rows[:, 0].tolist()
        )


def test_k_and_nprobe_have_the_limits_of_a_gpu(vectors, gpus):
    gpus(1)
    index = FaissIndex.build(vectors, factory="Flat").on_gpus()
    assert index.search(vectors[:1], k=2048).rows.shape == (1, 2048)
    with pytest.raises(InputError, match="k is 2049: FAISS on a GPU takes at most 2048"):
        index.search(vectors[:1], k=2049)
    wide = FaissIndex.build(vectors, factory="IVF2500,Flat")
    wide.turn(2049)
    with pytest.raises(InputError, match="nprobe is 2049"):
        wide.on_gpus()


@pytest.mark.parametrize("factory", ["HNSW8", "SQ8", "PCA4,HNSW8", "IVF8,SQ8,RFlat"])
def test_kind_that_no_gpu_holds_stays_with_a_line(vectors, gpus, factory):
    index = FaissIndex.build(vectors, factory=factory)
    copies, said = gpus(1), []
    assert index.on_gpus(say=said.append) is index
    assert not copies and len(said) == 1 and "stays on the CPU; valid: IndexFlat" in said[0]


def test_copy_that_fails_is_told_with_its_reason(vectors, gpus):
    index = FaissIndex.build(vectors, factory="IVF8,Flat")
    said = []
    gpus(2, error="out of memory")
    assert index.on_gpus(say=said.append) is index
    assert len(said) == 1 and "it stays on the CPU: out of memory" in said[0]


def test_gpu_build_without_a_gpu_says_so_and_a_cpu_build_needs_not(vectors, gpus):
    index = FaissIndex.build(vectors, factory="Flat")
    for options, lines in (("GENERIC GPU ", 1), ("GENERIC ", 0)):
        said = []
        gpus(0, options=options)
        assert index.on_gpus(say=said.append) is index and len(said) == lines
    with pytest.raises(InputError, match=r"2 GPUs for FAISS, it sees 0: install retrieval-cl\[gpu\]"):
        index.on_gpus(num_gpus=2)


def test_lists_are_trained_on_gpus_where_asked(vectors, gpus, tmp_path):
    copies = gpus(2)
    index = FaissIndex.build(vectors, factory="PCA4,IVF16,SQ8", num_gpus=None)
    # Once k-means, once the lists of the rows; the index itself goes there when it is asked to.
    assert copies == [("IndexFlatIP", 2, True, False), ("IndexFlat", 2, True, False)]
    assert len(index) == 3000
    index.save(tmp_path / "a")
    FaissIndex.build(vectors, factory="PCA4,IVF16,SQ8", num_gpus=0).save(tmp_path / "b")
    assert len(copies) == 2
    assert len(FaissIndex.load(tmp_path / "a")) == len(FaissIndex.load(tmp_path / "b")) == 3000


def test_lists_found_on_gpus_hold_the_same_rows(vectors, gpus):
    copies = gpus(1)
    there, here = (FaissIndex.build(vectors, factory="PCA4,IVF16,SQ8", num_gpus=num) for num in (1, 0))
    assert len(copies) == 2
    for index in (there, here):
        index.turn(3)
    found, wanted = (index.search(vectors[:50], k=20) for index in (there, here))
    np.testing.assert_array_equal(found.rows, wanted.rows)


def test_lists_whose_centres_are_a_graph_are_found_on_the_cpu(vectors, gpus):
    copies = gpus(1)
    assert len(FaissIndex.build(vectors, factory="IVF16_HNSW8,SQ8", num_gpus=1)) == 3000
    # Of k-means alone.
    assert len(copies) <= 1


def test_knob_turns_the_copy_that_searches_and_the_index_that_is_saved(vectors, gpus, tmp_path):
    gpus(1)
    index = FaissIndex.build(vectors, factory="IVF64,Flat").on_gpus()
    index.turn(1)
    narrow = index.search(vectors[:200], k=20)
    index.turn(64)
    wide = index.search(vectors[:200], k=20)
    assert (narrow.rows != wide.rows).any()
    index.save(tmp_path / "index")
    assert FaissIndex.load(tmp_path / "index").knob == index.knob and index.knob.value == 64


def test_recall_is_measured_and_tuned_on_the_gpus_that_search(vectors, gpus):
    copies = gpus(2)
    settings = FaissSettings("IVF32,Flat", target_recall=0.9, num_gpus=None, fp16=False)
    built = build_approximate(vectors, settings)
    assert copies[-1] == ("IndexIVFFlat", 2, True, False)
    assert built.recall.mean >= 0.9 and built.index.most_hits == 2048
    assert {"gpus": None, "fp16": False}.items() <= built.to_json().items()


def test_tuning_asks_a_gpu_for_no_more_hits_than_it_gives(vectors, gpus, monkeypatch):
    monkeypatch.setattr(faiss_gpu, "MOST_HITS", 40)
    settings = FaissSettings("IVF8,PQ2x4", target_recall=0.99, num_gpus=1)
    with pytest.raises(InputError, match="candidates a hit") as caught:
        gpus(1)
        build_approximate(vectors, settings)
    # 11 hits a query are asked for, and a row finds itself.
    assert "2 candidates a hit" in str(caught.value)


def test_index_made_on_gpus_is_searched_on_those_that_are_there(vectors, gpus, tmp_path):
    copies = gpus(3)
    parts = {"ids": [str(row) for row in range(3000)], "titles": [""] * 3000, "texts": ["a"] * 3000}
    settings = FaissSettings("IVF32,Flat", num_gpus=3)
    write_index(tmp_path / "index", vectors=vectors, fingerprint="one", faiss=settings, **parts)
    wanted = None
    for seen in (3, 2, 0):
        copies = gpus(seen)
        hits = open_index(tmp_path / "index").search(vectors[:9], k=5)
        assert [each[1] for each in copies] == [seen] * bool(seen)
        wanted = hits if wanted is None else wanted
        np.testing.assert_array_equal(hits.rows, wanted.rows)


def test_faiss_itself_is_an_argument_here():
    assert "faiss" not in vars(faiss_gpu) and "faiss" in sys.modules
