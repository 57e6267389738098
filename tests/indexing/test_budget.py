import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing.budget import Work, make_plan, parse_memory, shortlist_length
from retrieval_cl.indexing.shortlist import BLOCK

MIB = 2**20
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2**31),
        ("512 MB", 512_000_000),
        ("1.5gib", 3 * 2**29),
        ("16m", 16_000_000),
        ("65536", 65536),
        ("3k", 3000),
        (" 1TiB ", 2**40),
        ("7b", 7),
    ],
)
def test_size_in_words(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "2 GB!", "-1GB", "two", "1e9", "2XiB"])
def test_what_is_no_size_is_named(text):
    with pytest.raises(InputError, match="is no size; expected a number and a unit, as 2GiB"):
        parse_memory(text)


def test_memory_that_an_error_asks_for_is_enough():
    work = Work(10, 10**7, 64, 10**6, 4, 0, 4)
    with pytest.raises(InputError) as caught:
        make_plan(work, memory_bytes=32 * MIB, device=CPU, device_bytes=0)
    least = int(re.search(r"memory of (\d+) bytes", str(caught.value))[1])
    assert make_plan(work, memory_bytes=least, device=CPU, device_bytes=0).tile_rows == 1
    with pytest.raises(InputError, match=str(least)):
        make_plan(work, memory_bytes=least - 100, device=CPU, device_bytes=0)


@settings(deadline=None, max_examples=200)
@given(
    memory=st.sampled_from([32 * MIB, 64 * MIB, 512 * MIB, 4096 * MIB]),
    rows=st.integers(1, 10**8),
    num_queries=st.integers(1, 10**7),
    dim=st.sampled_from([1, 8, 384, 4096]),
    k=st.sampled_from([1, 10, 100, 1000, 20_000]),
    first_pass=st.sampled_from([2, 4]),
    copied=st.sampled_from([0, 2, 4]),
    product=st.sampled_from([0, 2, 4]),
)
def test_plan_keeps_the_working_set_within_memory(
    memory, rows, num_queries, dim, k, first_pass, copied, product
):
    work = Work(num_queries, rows, dim, k, first_pass, copied, product)
    try:
        plan = make_plan(work, memory_bytes=memory, device=CPU, device_bytes=0)
    except InputError:
        assert k * 1000 > memory // 16
        return
    length = shortlist_length(k)
    shard = plan.shard_rows * dim * (first_pass + copied)
    looked_into = min(plan.shard_rows, BLOCK * length) * (12 + product)
    tile = plan.tile_rows * (plan.shard_rows * product + looked_into + 12 * dim + 80 * k)
    keys = plan.wave_rows * k * 8
    result = num_queries * k * 12 if plan.keeps_hits else 0
    assert plan.shard_rows % BLOCK == 0 and plan.tile_rows >= 1
    assert shard + tile + keys + result + plan.chunk_bytes <= memory


def test_gpu_has_a_budget_of_its_own():
    work = Work(10_000, 10**7, 768, 100, 2, 2, 4)
    gpu = torch.device("cuda")
    large = make_plan(work, memory_bytes=64 * MIB, device=gpu, device_bytes=8 * 2**30)
    small = make_plan(work, memory_bytes=64 * MIB, device=gpu, device_bytes=2**28)
    assert large.shard_rows * 768 * 4 <= 3 * 2**30 < 64 * 2**30
    assert small.shard_rows < large.shard_rows and small.wave_rows == large.wave_rows


def test_tiles_and_shards_grow_where_no_product_is_kept():
    gpu, memory = torch.device("cuda"), {"memory_bytes": 2**30, "device_bytes": 2**31}
    kept, dropped = (
        make_plan(Work(10_000, 10**7, 64, 100, 2, 2, product), device=gpu, **memory) for product in (4, 0)
    )
    assert dropped.tile_rows * dropped.shard_rows > 2 * kept.tile_rows * kept.shard_rows


def test_k_that_cannot_fit_says_what_it_needs():
    with pytest.raises(InputError, match=r"k is 1000000: .* need a memory of \d+ bytes, given are 33554432"):
        make_plan(Work(10, 10**7, 64, 10**6, 4, 0, 4), memory_bytes=32 * MIB, device=CPU, device_bytes=0)
