"""What only a GPU shows: tensor cores in half precision, memory, waiting for the device, all block sizes."""

import pytest
import torch
from dense_logits import dense_sums, draw_case, gap, log_sum, weighted

pytest.importorskip("triton", reason="the kernels are Triton code: pip install 'retrieval-cl[kernels]'")

from retrieval_cl.core.kernels import available
from retrieval_cl.core.kernels.flash import LARGEST_DIM, flash_gradients, flash_sums
from retrieval_cl.core.kernels.sweep import Running, add_tile, tile_slopes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")
HALVES = [torch.bfloat16, torch.float16]


def all_of(case, plan, *, symmetric=True):
    """Sums and gradients of a case, for slopes that grow with the row."""
    row_slopes = torch.linspace(0.5, 1.5, len(case.scaled), device=CUDA)
    column_slopes = torch.linspace(1.5, 0.5, len(case.vectors), device=CUDA)
    rows, columns = flash_sums(plan, case.scaled, case.vectors, symmetric=symmetric)
    terms = {"column_logs": columns, "column_slopes": column_slopes} if symmetric else {}
    grads = flash_gradients(plan, case.scaled, case.vectors, row_logs=rows, row_slopes=row_slopes, **terms)
    return rows, columns, *grads


def dense_all_of(case):
    """The same, dense and in float64."""
    rows, columns, leaves = dense_sums(case)
    total = weighted(rows, torch.linspace(0.5, 1.5, len(rows), device=CUDA))
    total = total + weighted(columns, torch.linspace(1.5, 0.5, len(columns), device=CUDA))
    return rows, columns, *torch.autograd.grad(total, leaves)


def test_the_kernels_are_compiled_here():
    from retrieval_cl.core.kernels.flash import INTERPRETED

    assert available(CUDA) and not INTERPRETED


@pytest.mark.parametrize("share", [0.0, 0.002, 0.3])
@pytest.mark.parametrize("dim", [5, 64, 100, 128, 256, 384, LARGEST_DIM])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_equals_the_dense_reference(dtype, dim, share):
    case = draw_case(300, 1000, dim, share=share, scale=10.0, dtype=dtype, device=CUDA)
    found, wanted = all_of(case, case.plan()), dense_all_of(case)
    # Logits are exact products of the rounded inputs; slopes are rounded to the dtype of the products.
    assert gap(found[0], wanted[0]) < 1e-5 and gap(found[1], wanted[1]) < 1e-5
    limit = 2 * torch.finfo(dtype).eps
    assert gap(found[2], wanted[2]) < limit and gap(found[3], wanted[3]) < limit


@pytest.mark.parametrize("dim", [16, 100, 256])
def test_float32_equals_the_dense_reference(dim):
    case = draw_case(100, 300, dim, share=0.05, scale=10.0, device=CUDA)
    for found, wanted in zip(all_of(case, case.plan()), dense_all_of(case), strict=True):
        assert found.dtype == torch.float32 and gap(found, wanted) < 1e-5


@pytest.mark.parametrize("num_anchors", [1, 128, 5000])
def test_any_number_of_anchors_equals_the_dense_reference(num_anchors):
    case = draw_case(num_anchors, 3000, 64, share=1e-3, scale=10.0, dtype=torch.bfloat16, device=CUDA)
    for found, wanted in zip(all_of(case, case.plan()), dense_all_of(case), strict=True):
        assert gap(found, wanted) < 2 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("scale", [1e-4, 1e2, 1e4])
def test_extreme_scales_stay_finite(scale):
    case = draw_case(300, 1000, 128, share=0.01, scale=scale, dtype=torch.bfloat16, device=CUDA)
    rows, columns, *grads = all_of(case, case.plan())
    wanted_rows, wanted_columns, _ = dense_sums(case)
    assert gap(rows, wanted_rows) < 1e-5 and gap(columns, wanted_columns) < 1e-5
    assert all(grad.isfinite().all() for grad in grads)


def test_the_same_input_gives_the_same_bits():
    case = draw_case(1000, 5000, 128, share=0.01, dtype=torch.bfloat16, device=CUDA)
    first = all_of(case, case.plan())
    for _ in range(3):
        again = all_of(case, case.plan())
        assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


@pytest.fixture
def no_waiting():
    """An error for every wait on the device."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_nothing_waits_for_the_device(request):
    case = draw_case(500, 2000, 128, share=0.01, dtype=torch.bfloat16, device=CUDA)
    tile = torch.randn(500, 2000, device=CUDA)

    def everything():
        all_of(case, case.plan())
        sweep(tile, torch.bfloat16)

    # Compiling and loading the kernels may wait.
    everything()
    request.getfixturevalue("no_waiting")
    everything()


def test_memory_stays_far_below_the_logits():
    case = draw_case(8192, 65536, 64, share=0.0, dtype=torch.bfloat16, device=CUDA)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    results = all_of(case, case.plan())
    held = sum(result.numel() * result.element_size() for result in results)
    assert torch.cuda.max_memory_allocated() - before - held < 200 * 2**20 < 8192 * 65536 * 4 // 10


def sweep(tile, dtype, *, exponents=(1.0, 2.0)):
    """Sums of rows and columns of a tile, then its slopes."""
    sizes = {"num_exponents": len(exponents), "device": CUDA}
    rows, columns = (Running.start(size, **sizes) for size in tile.shape)
    limits = torch.linspace(1.0, 4.0, len(tile), device=CUDA)
    add_tile(tile, rows, exponents=exponents, columns=columns, limits=limits)
    row_logs, column_logs = rows.logs(exponents), columns.logs(exponents)
    out = torch.empty_like(tile, dtype=dtype)
    tile_slopes(
        tile,
        out,
        row_logs=row_logs,
        row_slopes=torch.ones_like(row_logs),
        exponents=exponents,
        column_logs=column_logs,
        column_slopes=torch.ones_like(column_logs),
        limits=limits,
    )
    return limits, row_logs, column_logs, out


@pytest.mark.parametrize("shape", [(4096, 4096), (1000, 3001), (1, 5), (77, 20000)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_library_product_is_swept_like_the_dense_reference(dtype, shape):
    left = torch.randn(shape[0], 768, device=CUDA, dtype=torch.bfloat16) / 16
    tile = (left @ torch.randn(768, shape[1], device=CUDA, dtype=torch.bfloat16)).float()
    tile[0, ::3] = -torch.inf
    limits, row_logs, column_logs, out = sweep(tile, dtype)
    kept = tile.double().masked_fill(tile > limits[:, None], -torch.inf)
    wanted = torch.zeros_like(kept)
    for number, exponent in enumerate((1.0, 2.0)):
        by_row = log_sum(kept, dim=1, exponent=exponent)
        by_column = log_sum(kept, dim=0, exponent=exponent)
        assert gap(row_logs[number], by_row) < 1e-5 and gap(column_logs[number], by_column) < 1e-5
        # +inf where nothing was summed: slope 0.
        for logs in (by_row[:, None], by_column[None, :]):
            wanted += exponent * torch.exp2(exponent * kept - logs.where(logs > -torch.inf, torch.inf))
    assert gap(out, wanted) < (1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps)
    assert (out[kept == -torch.inf] == 0).all()


def test_a_tile_beyond_two_thousand_million_entries_is_swept_to_its_end():
    # 4.3 GB in half precision: places pass 2 ** 31.
    tile = torch.zeros(40000, 54000, dtype=torch.float16, device=CUDA)
    tile[-1, -1] = 3.0
    rows = Running.start(len(tile), num_exponents=1, device=CUDA)
    add_tile(tile, rows)
    assert rows.largest[-1] == 3.0 and float(rows.totals.sum()) == pytest.approx(
        54000 * 39999 + 1 + 53999 / 8
    )
