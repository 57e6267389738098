import tempfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing import exact, first_pass, order, shortlist, tile_search
from retrieval_cl.indexing.budget import Plan, shortlist_length
from retrieval_cl.indexing.hit_files import map_hits

MIB = 2**20


def slow_fold(terms):
    # The rule, said once more in plain numpy scalars.
    terms = [np.float32(term) for term in terms]
    while len(terms) > 1:
        half = len(terms) // 2
        tail = terms[len(terms) - half :]
        terms = [a + b for a, b in zip(terms, tail, strict=False)] + terms[half : len(terms) - half]
    return terms[0]


def slow_search(queries, passages, k):
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    for i, query in enumerate(queries):
        found = [(-slow_fold(query * passage), row) for row, passage in enumerate(passages)]
        for rank, (negative, row) in enumerate(sorted(found)[:k]):
            scores[i, rank], rows[i, rank] = -negative, row
    return scores, rows


def full_sort(queries, passages, k):
    scores = order.dot(torch.from_numpy(queries)[:, None], torch.from_numpy(passages)[None]).numpy()
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, axis=1), rows


def assert_equal_hits(hits, scores, rows):
    np.testing.assert_array_equal(hits.rows, rows)
    np.testing.assert_array_equal(hits.scores, scores)


def unit(rng, count, dim, *, centre=0.0):
    vectors = rng.standard_normal((count, dim)).astype(np.float32) + np.float32(centre)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def tiny_tiles(monkeypatch):
    def cut(shard_rows, tile_rows, chunk_bytes=8192, wave_rows=10_000, keeps_hits=True):
        plan = Plan(wave_rows, shard_rows, tile_rows, chunk_bytes, keeps_hits)
        monkeypatch.setattr(exact, "make_plan", lambda *_, **__: plan)

    return cut


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_queries=st.integers(1, 20),
    num_passages=st.integers(1, 90),
    dim=st.integers(1, 7),
    k=st.integers(1, 12),
    first_pass=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_search_equals_slow_loop_with_ties_zeros_and_negatives(
    seed, num_queries, num_passages, dim, k, first_pass
):
    # Few distinct values make ties, duplicates, zero rows and all-negative rows common.
    rng = np.random.default_rng(seed)
    values = np.array([-1.0, -0.25, -0.0, 0.0, 0.3, 1.0], dtype=np.float32)[: rng.integers(1, 7)]
    queries, passages = (rng.choice(values, (rows, dim)) for rows in (num_queries, num_passages))
    hits = exact.search(queries, passages, k=k, first_pass=first_pass)
    assert_equal_hits(hits, *slow_search(queries, passages, k))


@pytest.mark.parametrize("centre", [0.0, 1.0], ids=["centred", "one direction shared by all"])
@pytest.mark.parametrize("first_pass", [torch.float32, torch.bfloat16])
def test_search_equals_full_sort_of_all_scores(first_pass, centre):
    rng = np.random.default_rng(0)
    queries, passages = unit(rng, 17, 24, centre=centre), unit(rng, 3000, 24, centre=centre)
    hits = exact.search(queries, passages, k=5, first_pass=first_pass)
    assert_equal_hits(hits, *full_sort(queries, passages, 5))


@pytest.mark.parametrize("first_pass", [torch.float32, torch.bfloat16])
def test_same_bits_for_any_tile_and_shard(tiny_tiles, first_pass):
    rng = np.random.default_rng(1)
    passages = unit(rng, 700, 33)
    passages[400:500] = passages[100:200]
    queries = np.concatenate([unit(rng, 30, 33), passages[400:420]])
    whole = exact.search(queries, passages, k=9, first_pass=torch.float32)
    for shard_rows, tile_rows, wave_rows in [(32, 7, 50), (224, 50, 13), (320, 1, 1), (704, 16, 33)]:
        tiny_tiles(shard_rows, tile_rows, wave_rows=wave_rows, keeps_hits=wave_rows > 20)
        hits = exact.search(queries, passages, k=9, first_pass=first_pass)
        assert_equal_hits(hits, whole.scores, whole.rows)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_same_bits_for_any_sharding_of_passages_and_queries(tiny_tiles, dtype):
    rng = np.random.default_rng(12)
    passages = torch.from_numpy(unit(rng, 500, 20)).to(dtype)
    queries = torch.from_numpy(unit(rng, 40, 20)).to(dtype)
    whole = exact.search(queries, passages, k=9)
    for sizes in ([500], [1, 0, 300, 199], [100] * 5):
        shards = list(passages.split(sizes))
        for shard_rows in (96, 512):
            tiny_tiles(shard_rows, 7)
            hits = exact.search(list(queries.split(11)), shards, k=9, first_pass=torch.bfloat16)
            assert_equal_hits(hits, whole.scores, whole.rows)


def test_result_goes_to_the_callers_map(tmp_path):
    rng = np.random.default_rng(13)
    queries, passages = unit(rng, 30, 8), unit(rng, 90, 8)
    expected = exact.search(queries, passages, k=100)
    assert (expected.rows[:, 90:] == -1).all() and np.isneginf(expected.scores[:, 90:]).all()
    out = map_hits(tmp_path, 30, k=100)
    assert exact.search(queries, passages, k=100, out=out) is out
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), expected.rows)
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), expected.scores)
    with pytest.raises(InputError, match=r"out has shape \(30, 100\).*expected a writable one of \(30, 7\)"):
        exact.search(queries, passages, k=7, out=out)


def test_result_that_does_not_fit_is_mapped_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rng = np.random.default_rng(14)
    queries, passages = unit(rng, 5000, 4), unit(rng, 100, 4)
    hits = exact.search(queries, passages, k=80, memory_bytes=32 * MIB)
    assert isinstance(hits.rows, np.memmap) and list(tmp_path.iterdir()) == []
    roomy = exact.search(queries, passages, k=80)
    assert not isinstance(roomy.rows, np.memmap)
    assert_equal_hits(hits, roomy.scores, roomy.rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shortlist_holds_the_largest_products_whether_or_not_blocks_are_skipped(dtype):
    products = torch.randn(7, 6400, generator=torch.Generator().manual_seed(0)).to(dtype)
    products[0] = -products[0].abs()
    products[1, 3:] = -torch.inf
    products[2] = 0.0
    for count in (5, 99, 150, 6400):
        values, columns, rest = shortlist.select(products, count=count)
        wanted = products.float().sort(dim=1, descending=True).values
        assert torch.equal(values, wanted[:, :count])
        assert torch.equal(products.float().gather(1, columns), values)
        assert (rest[:, 0] >= wanted[:, count] if count < 6400 else rest[:, 0] == -torch.inf).all()


def test_block_selection_is_used_and_equals_full_sort():
    rng = np.random.default_rng(2)
    queries, passages = unit(rng, 40, 16), unit(rng, 20_000, 16)
    assert 2 * shortlist_length(3) < 20_000 // shortlist.BLOCK
    hits = exact.search(queries, passages, k=3, first_pass=torch.bfloat16)
    assert_equal_hits(hits, *full_sort(queries, passages, 3))


def test_query_whose_bound_fails_is_widened(monkeypatch):
    # 500 passages within bfloat16's error of each other: no shortlist of 42 can be trusted.
    rng = np.random.default_rng(3)
    base = unit(rng, 1, 64)
    far = unit(rng, 4000, 64)
    near = base + 1e-4 * rng.standard_normal((500, 64)).astype(np.float32)
    passages = np.concatenate([far, near.astype(np.float32)])
    queries = np.repeat(base, 20, axis=0)
    widened = []
    widen = tile_search._widen
    monkeypatch.setattr(tile_search, "_widen", lambda *a, **b: widened.append(1) or widen(*a, **b))
    hits = exact.search(queries, passages, k=10, first_pass=torch.bfloat16)
    assert len(widened) == len(queries)
    assert_equal_hits(hits, *full_sort(queries, passages, 10))


def test_thousand_copies_of_one_passage_come_in_row_order():
    rng = np.random.default_rng(4)
    one = unit(rng, 1, 12)
    passages = np.concatenate([unit(rng, 100, 12), np.repeat(one, 2000, axis=0)])
    hits = exact.search(np.repeat(one, 20, axis=0), passages, k=50, first_pass=torch.bfloat16)
    np.testing.assert_array_equal(hits.rows, np.tile(np.arange(100, 150), (20, 1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
@pytest.mark.parametrize("num_queries", [1, 16, 50])
def test_no_score_leaves_the_bounds_of_the_first_pass(dtype, scale, num_queries):
    rng = np.random.default_rng(5)
    queries = torch.from_numpy(unit(rng, num_queries, 96, centre=0.5) * np.float32(scale))
    passages = torch.from_numpy(unit(rng, 500, 96, centre=0.5) * np.float32(scale))
    shard = shortlist.make_shard(passages, first_row=0, first_pass=dtype, device=torch.device("cpu"))
    compared = first_pass.choose(shard, tile_rows=num_queries, count=600)
    bounds = compared.compare(queries, norms=queries.norm(dim=1))
    scores = queries.double() @ passages.double().T
    products, columns, _ = compared.shortlist(512)
    inner = torch.empty(num_queries, 512).scatter_(1, columns, products)[:, :500]
    assert bool((bounds.lower(inner) <= scores).all() and (scores <= bounds.upper(inner)).all())
    # And they are no wider than what makes them useful.
    width = (bounds.upper(inner) - bounds.lower(inner)).max() / scale**2
    assert width < (0.02 if dtype == torch.bfloat16 else 1e-3)


def test_k_beyond_corpus_pads_with_minus_one_and_minus_infinity():
    vectors = np.eye(3, dtype=np.float32)
    hits = exact.search(vectors, vectors, k=5)
    np.testing.assert_array_equal(hits.rows[:, 3:], -1)
    np.testing.assert_array_equal(hits.scores[:, 3:], -np.inf)
    np.testing.assert_array_equal(hits.rows[1], [1, 0, 2, -1, -1])


def test_empty_corpus_gives_no_hits_and_no_queries_give_no_rows():
    vectors = np.eye(3, dtype=np.float32)
    assert (exact.search(vectors, vectors[:0], k=2).rows == -1).all()
    assert exact.search(vectors[:0], vectors, k=2).rows.shape == (0, 2)


def test_zero_query_ties_with_every_passage():
    passages = unit(np.random.default_rng(6), 200, 8)
    hits = exact.search(np.zeros((1, 8), np.float32), passages, k=4)
    np.testing.assert_array_equal(hits.rows, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(hits.scores, np.zeros((1, 4)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("name", ["queries", "passages"])
def test_row_that_is_not_finite_is_named(name, bad, tiny_tiles):
    tiny_tiles(32, 8)
    arrays = {"queries": np.ones((50, 4), np.float32), "passages": np.ones((70, 4), np.float32)}
    arrays[name][41, 2] = bad
    with pytest.raises(InputError, match=f"{name}: row 41 "):
        exact.search(arrays["queries"], arrays["passages"], k=1)


def test_bad_arguments_say_what_is_valid():
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(InputError, match="k is 0; expected at least 1"):
        exact.search(vectors, vectors, k=0)
    with pytest.raises(InputError, match=r"\(3, 3\).*\(3, 2\)"):
        exact.search(vectors, vectors[:, :2], k=1)
    with pytest.raises(InputError, match="at least 33554432"):
        exact.search(vectors, vectors, k=1, memory_bytes=1000)
    with pytest.raises(InputError, match=r"device memory is given .*the device is cpu"):
        exact.search(vectors, vectors, k=1, device_bytes=2**30)
    with pytest.raises(InputError, match="passages: no shards"):
        exact.search(vectors, [], k=1)
    with pytest.raises(InputError, match=r"passages have shape \(3, 2\); expected matrices of one width"):
        exact.search(vectors, [vectors, vectors[:, :2]], k=1)


def test_memory_map_and_float16_are_searched_in_place(tmp_path):
    rng = np.random.default_rng(7)
    vectors = unit(rng, 300, 8)
    np.save(tmp_path / "vectors.npy", vectors.astype(np.float16))
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    hits = exact.search(vectors[:20], mapped, k=3)
    rounded = exact.search(vectors[:20], np.asarray(mapped).astype(np.float32), k=3)
    assert_equal_hits(hits, rounded.scores, rounded.rows)


def test_device_and_threads_do_not_change_the_bits():
    rng = np.random.default_rng(8)
    queries, passages = unit(rng, 64, 48), unit(rng, 4000, 48)
    before = torch.get_num_threads()
    hits = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            hits.append(exact.search(queries, passages, k=7, first_pass=torch.bfloat16))
    finally:
        torch.set_num_threads(before)
    assert_equal_hits(hits[0], hits[1].scores, hits[1].rows)


@pytest.mark.gpu
def test_gpu_gives_the_bits_of_the_processor():
    rng = np.random.default_rng(9)
    queries, passages = unit(rng, 300, 128), unit(rng, 50_000, 128)
    host = exact.search(queries, passages, k=20)
    assert_equal_hits(exact.search(queries, passages, k=20, device="cuda"), host.scores, host.rows)
