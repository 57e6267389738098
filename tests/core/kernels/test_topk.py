import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="the kernels are Triton code: pip install 'retrieval-cl[kernels]'")

from retrieval_cl.core.kernels.topk import largest_of_blocks, products_of_blocks


def draw(rows, dim, *, seed, device, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=random).to(device, dtype)


def dense(queries, passages, block):
    """All products in float64, blocks apart, -inf where the last one has no passage."""
    products = queries.double() @ passages.double().T
    missing = -len(passages) % block
    padded = torch.nn.functional.pad(products, (0, missing), value=-torch.inf)
    return padded.view(len(queries), -1, block)


def gap(found, wanted):
    """Greatest difference beside the greatest value; where one is infinite the other must be the same."""
    finite = wanted.isfinite()
    assert torch.equal(found.isfinite(), finite) and torch.equal(found[~finite].double(), wanted[~finite])
    return float((found - wanted)[finite].abs().max() / wanted[finite].abs().max())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(3, 70, 5), (130, 300, 64), (1, 1, 1), (17, 256, 130)], ids=str)
def test_maxima_of_blocks_equal_the_dense_reference(shape, dtype, device):
    queries = draw(shape[0], shape[2], seed=0, device=device, dtype=dtype)
    passages = draw(shape[1], shape[2], seed=1, device=device, dtype=dtype)
    found = largest_of_blocks(queries, passages, block=32)
    assert gap(found, dense(queries, passages, 32).amax(dim=2)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("num_chosen", [1, 4, 6])
def test_products_of_chosen_blocks_equal_the_dense_reference(num_chosen, dtype, device):
    queries = draw(5, 70, seed=0, device=device, dtype=dtype)
    passages = draw(200, 70, seed=1, device=device, dtype=dtype)
    # Every query has its own, the ragged last one among them.
    chosen = (torch.arange(5)[:, None] + 6 - torch.arange(num_chosen)).remainder(7).to(device)
    found = products_of_blocks(queries, passages, chosen=chosen, block=32)
    every = dense(queries, passages, 32)
    wanted = every.gather(1, chosen[:, :, None].expand(-1, -1, 32)).flatten(1)
    assert gap(found, wanted) < 1e-5


def test_passages_may_be_rows_of_a_wider_matrix(device):
    wide = draw(90, 40, seed=2, device=device)
    queries, passages = wide[:3, 8:24], wide[:, 8:24]
    found = largest_of_blocks(queries, passages, block=16)
    assert gap(found, dense(queries, passages, 16).amax(dim=2)) < 1e-5


def test_nothing_gives_nothing(device):
    some, none = draw(2, 4, seed=0, device=device), draw(0, 4, seed=0, device=device)
    assert largest_of_blocks(some, none, block=32).shape == (2, 0)
    assert largest_of_blocks(none, some, block=32).shape == (0, 1)
    chosen = torch.empty(2, 0, dtype=torch.int64, device=device)
    assert products_of_blocks(some, some, chosen=chosen, block=32).shape == (2, 0)


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from retrieval_cl.core.kernels import topk, topk_jit

def built(kernel, types, constants, **options):
    place = {name: number for number, name in enumerate(kernel.arg_names)}
    constants = {(place[name],): value for name, value in constants.items()}
    aligned = {(place[name],): [["tt.divisibility", 16]] for name in types if name not in ("num_queries",)}
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)

tile = topk.HALF_TILE
shared = {"WIDTH": 768, "BLOCK": 16, "UPCAST": False}
types = {"queries": "*bf16", "passages": "*bf16", "out": "*fp32"}
types |= {"stride_query": "i32", "stride_passage": "i32", "num_passages": "i32"}
for capability, instruction in ((80, "mma.sync"), (90, "wgmma")):
    first = built(
        topk_jit.block_maxima,
        {**types, "num_queries": "i32", "stride_out": "i32", "num_row_tiles": "i32"},
        {"ROWS": tile.rows, "COLUMNS": tile.columns, "DEPTH": tile.depth, **shared},
        num_warps=tile.warps, num_stages=tile.stages,
    )
    assert instruction in first.asm["ptx"] and first.metadata.shared < 163 * 1024
    second = built(
        topk_jit.chosen_products,
        {**types, "chosen": "*i64", "num_chosen": "i32", "num_parts": "i32"},
        {"BLOCKS": topk.BLOCKS_AT_ONCE, "DEPTH": topk.CHOSEN_DEPTH, **shared},
        num_warps=topk.CHOSEN_WARPS,
    )
    assert second.metadata.shared < 48 * 1024
"""


@pytest.mark.slow
def test_kernels_compile_for_an_a100_and_an_h100(tmp_path):
    # Without a GPU; a process of its own, as here triton interprets.
    environment = {"TRITON_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
