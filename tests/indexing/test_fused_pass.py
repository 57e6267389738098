import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="the kernels are Triton code: pip install 'retrieval-cl[kernels]'")

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.kernels import topk
from retrieval_cl.core.kernels.flash import INTERPRETED
from retrieval_cl.indexing import exact, first_pass, shortlist, tile_search
from retrieval_cl.indexing.budget import Plan
from retrieval_cl.indexing.fused_pass import FusedPass

CPU, HALF = torch.device("cpu"), torch.bfloat16
interpreted = pytest.mark.skipif(not INTERPRETED, reason="compiled kernels take nothing on the CPU")


@pytest.fixture(scope="module")
def fused():
    """The rule chooses the kernels on this machine too, where they are interpreted; counts the passes."""
    if not INTERPRETED:
        pytest.skip("compiled kernels take nothing on the CPU")
    passes = []

    def choose(shard, *, tile_rows, count):
        skips_blocks = 2 * count < len(shard.compared) // shortlist.BLOCK
        if not skips_blocks or shard.compared.dtype != HALF:
            return first_pass.ProductPass(shard, tile_rows=tile_rows)
        passes.append(shard)
        return FusedPass(shard)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact.passes, "choose", choose)
        # Interpreted, a program costs the same whatever its size.
        patch.setattr(topk, "BLOCKS_AT_ONCE", 32)
        yield passes


def draw(rng, rows, dim, *, centre=0.0):
    return rng.standard_normal((rows, dim)).astype(np.float32) + np.float32(centre)


def search_both(queries, passages, *, k, fused):
    """Hits by torch tiles in float32, and by the kernels, which must have run."""
    before = len(fused)
    found = exact.search(queries, passages, k=k, first_pass=HALF)
    assert len(fused) - before == 1
    wanted = exact.search(queries, passages, k=k, first_pass=torch.float32)
    return wanted, found


def assert_same(wanted: Hits, found: Hits) -> None:
    np.testing.assert_array_equal(found.rows, wanted.rows)
    np.testing.assert_array_equal(found.scores, wanted.scores)


@pytest.mark.slow
@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 9), k=st.integers(1, 7), values=st.integers(1, 9))
def test_hits_equal_those_of_torch_tiles_with_ties_zeros_and_negatives(fused, seed, dim, k, values):
    # Few distinct values in few numbers make ties, duplicates and zero rows common.
    rng = np.random.default_rng(seed)
    several = np.array([-1.0, 0.0, -0.25, -0.0, 0.3, 1.0, 0.7, -0.9, 0.01], dtype=np.float32)[:values]
    queries, passages = (rng.choice(several, (rows, dim)) for rows in (16, 1400))
    assert_same(*search_both(queries, passages, k=k, fused=fused))


@pytest.mark.parametrize("centre", [0.0, 1.0], ids=["centred", "one direction shared by all"])
def test_hits_equal_those_of_torch_tiles(fused, centre):
    rng = np.random.default_rng(0)
    queries, passages = draw(rng, 17, 24, centre=centre), draw(rng, 3001, 24, centre=centre)
    passages[2800:2900] = passages[:100]
    queries[0], passages[77] = 0.0, 0.0
    assert_same(*search_both(queries, passages, k=10, fused=fused))


def test_shards_and_tiles_do_not_change_the_hits(fused, monkeypatch):
    rng = np.random.default_rng(1)
    queries, passages = draw(rng, 16, 16), draw(rng, 6000, 16)
    wanted = exact.search(queries, passages, k=3, first_pass=torch.float32)
    monkeypatch.setattr(exact, "make_plan", lambda *_, **__: Plan(50, 2976, 9, 8192, True))
    found = exact.search(queries, passages, k=3, first_pass=HALF)
    # The third shard is too short to skip a block of it.
    assert [len(shard.vectors) for shard in fused[-2:]] == [2976, 2976]
    assert_same(wanted, found)


def test_query_whose_bound_fails_is_widened(fused, monkeypatch):
    # 500 passages within bfloat16's error of each other: no shortlist of 42 can be trusted.
    rng = np.random.default_rng(3)
    base = draw(rng, 1, 64)
    near = base + 1e-2 * draw(rng, 500, 64)
    passages = np.concatenate([draw(rng, 2500, 64), near])
    widened = []
    widen = tile_search._widen
    monkeypatch.setattr(tile_search, "_widen", lambda *a, **b: widened.append(b["columns"]) or widen(*a, **b))
    wanted, found = search_both(np.repeat(base, 16, axis=0), passages, k=10, fused=fused)
    assert len(widened) == 16 and all(500 <= columns.numel() < 1000 for columns in widened)
    assert_same(wanted, found)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_row_that_is_not_finite_is_named(fused, bad):
    passages = np.ones((4000, 4), np.float32)
    passages[3999, 1] = bad
    with pytest.raises(exact.InputError, match="passages: row 3999 "):
        exact.search(np.ones((20, 4), np.float32), passages, k=1, first_pass=HALF)


@interpreted
def test_no_score_leaves_the_bounds_and_none_left_out_is_above_the_rest():
    rng = np.random.default_rng(5)
    queries = torch.from_numpy(draw(rng, 9, 40, centre=0.5))
    passages = torch.from_numpy(draw(rng, 3000, 40, centre=0.5))
    shard = shortlist.make_shard(passages, first_row=0, first_pass=HALF, device=CPU)
    compared = FusedPass(shard)
    bounds = compared.compare(queries, norms=queries.norm(dim=1))
    values, columns, rest = compared.shortlist(30)
    scores = queries.double() @ passages.double().T
    listed = scores.gather(1, columns)
    assert bool((bounds.lower(values) <= listed).all() and (listed <= bounds.upper(values)).all())
    others = scores.scatter(1, columns, -torch.inf)
    assert bool((others.amax(dim=1, keepdim=True) <= bounds.upper(rest)).all())
    for row in range(9):
        least = scores[row].sort().values[-100][None, None].float()
        reaching = compared.reaching(torch.tensor([row]), least)[0]
        assert set((scores[row] >= least[0, 0]).nonzero()[:, 0].tolist()) <= set(reaching.tolist())
        assert len(reaching) < 500


def test_the_rule_takes_the_kernels_on_a_gpu_in_half_precision_alone(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(first_pass.kernels, "available", lambda device: True)
    assert [first_pass.product_bytes(HALF, device) for device in (gpu, CPU)] == [0, 2]
    assert [first_pass.product_bytes(torch.float32, device) for device in (gpu, CPU)] == [4, 4]
    monkeypatch.setattr(first_pass.kernels, "available", lambda device: False)
    assert first_pass.product_bytes(HALF, gpu) == 4


@pytest.mark.gpu
def test_gpu_keeps_no_matrix_of_products():
    queries, passages = torch.randn(1024, 768, device="cuda"), torch.randn(500_000, 768, device="cuda")
    shard = shortlist.make_shard(passages, first_row=0, first_pass=HALF, device=queries.device)
    compared = first_pass.choose(shard, tile_rows=1024, count=150)
    assert isinstance(compared, FusedPass)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    compared.compare(queries, norms=queries.norm(dim=1))
    compared.shortlist(150)
    assert torch.cuda.max_memory_allocated() - before < 1024 * 500_000 * 4 // 4
