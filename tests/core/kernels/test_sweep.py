import pytest
import torch
from dense_logits import gap, log_sum, weighted

pytest.importorskip("triton", reason="the kernels are Triton code: pip install 'retrieval-cl[kernels]'")

from retrieval_cl.core.kernels.sweep import (
    MERGED_BLOCKS,
    SUM_COLUMNS,
    Running,
    add_tile,
    tile_slopes,
)

SHAPES = [(70, 150), (3, 257), (1, 1), (130, 5), (64, 128)]
EXPONENTS = [(1.0,), (0.3, 2.5)]


def draw_logits(num_rows, num_columns, *, device, seed=0, spread=4.0):
    """Logits, some of them -inf."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, num_columns, generator=random) * spread
    logits[torch.rand(num_rows, num_columns, generator=random) < 0.1] = -torch.inf
    return logits.to(device)


def sums(logits, exponents, *, limits=None, symmetric=True):
    """Sums of the rows and, or None, of the columns."""
    sizes = {"num_exponents": len(exponents), "device": logits.device}
    rows, columns = (Running.start(size, **sizes) for size in logits.shape)
    columns = columns if symmetric else None
    add_tile(logits, rows, exponents=exponents, columns=columns, limits=limits)
    return rows, columns


def limited(logits, limits):
    return logits if limits is None else logits.masked_fill(logits > limits[:, None], -torch.inf)


@pytest.mark.parametrize("exponents", EXPONENTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_equal_the_dense_reference(shape, exponents, device):
    logits = draw_logits(*shape, device=device)
    rows, columns = sums(logits, exponents)
    for number, exponent in enumerate(exponents):
        wanted = [log_sum(logits.double(), dim=dim, exponent=exponent) for dim in (1, 0)]
        assert gap(rows.logs(exponents)[number], wanted[0]) < 1e-6
        assert gap(columns.logs(exponents)[number], wanted[1]) < 1e-6


def test_logits_above_their_rows_limit_count_in_neither_direction(device):
    logits = draw_logits(70, 150, device=device)
    limits = torch.linspace(-3.0, 3.0, 70, device=device)
    limits[5], limits[6] = torch.inf, -torch.inf
    rows, columns = sums(logits, (1.0, 2.0), limits=limits)
    kept = limited(logits, limits).double()
    assert gap(rows.logs((1.0, 2.0))[1], log_sum(kept, dim=1, exponent=2.0)) < 1e-6
    assert gap(columns.logs((1.0, 2.0))[0], log_sum(kept, dim=0)) < 1e-6


def test_tiles_add_up_to_the_whole(device):
    logits = draw_logits(90, 200, device=device)
    exponents = (1.0, 2.0)
    rows = Running.start(90, num_exponents=2, device=device)
    columns = Running.start(200, num_exponents=2, device=device)
    for low in range(0, 200, 70):
        for first in (0, 45):
            tile = logits[first : first + 45, low : low + 70]
            parts = rows.part(first, first + 45), columns.part(low, low + 70)
            add_tile(tile, parts[0], exponents=exponents, columns=parts[1])
    whole_rows, whole_columns = sums(logits, exponents)
    assert gap(rows.logs(exponents), whole_rows.logs(exponents)) < 1e-6
    assert gap(columns.logs(exponents), whole_columns.logs(exponents)) < 1e-6


def test_more_blocks_than_are_merged_at_once(device):
    logits = draw_logits(2, SUM_COLUMNS * MERGED_BLOCKS + 3, device=device)
    rows, _ = sums(logits, (1.0,), symmetric=False)
    assert gap(rows.logs((1.0,))[0], log_sum(logits.double(), dim=1)) < 1e-6


def test_rows_and_columns_without_logits_have_the_sum_of_nothing(device):
    logits = draw_logits(10, 20, device=device)
    logits[3], logits[:, 7] = -torch.inf, -torch.inf
    rows, columns = sums(logits, (1.0,))
    # A tile more must not turn nothing into NaN.
    add_tile(logits, rows, exponents=(1.0,), columns=columns)
    row_logs, column_logs = rows.logs((1.0,)), columns.logs((1.0,))
    assert (row_logs[0] == -torch.inf).nonzero().tolist() == [[3]]
    assert (column_logs[0] == -torch.inf).nonzero().tolist() == [[7]]
    out = torch.full_like(logits, torch.nan)
    tile_slopes(
        logits,
        out,
        row_logs=row_logs,
        row_slopes=torch.ones_like(row_logs),
        column_logs=column_logs,
        column_slopes=torch.ones_like(column_logs),
    )
    assert (out[logits == -torch.inf] == 0).all() and (out[logits > -torch.inf] > 0).all()


@pytest.mark.parametrize("spread", [1e-4, 1e2, 1e4])
def test_extreme_logits_stay_finite(spread, device):
    logits = draw_logits(70, 150, device=device, spread=spread)
    exponents = (1.0, 2.0)
    rows, columns = sums(logits, exponents)
    assert gap(rows.logs(exponents)[1], log_sum(logits.double(), dim=1, exponent=2.0)) < 1e-6
    out = torch.empty_like(logits)
    row_logs, column_logs = rows.logs(exponents), columns.logs(exponents)
    tile_slopes(
        logits,
        out,
        row_logs=row_logs,
        row_slopes=torch.ones_like(row_logs),
        exponents=exponents,
        column_logs=column_logs,
        column_slopes=torch.ones_like(column_logs),
    )
    assert out.isfinite().all()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("with_limits", [False, True])
@pytest.mark.parametrize("exponents", EXPONENTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_slopes_equal_autograd_of_the_dense_reference(shape, exponents, with_limits, symmetric, device):
    logits = draw_logits(*shape, device=device, spread=2.0)
    limits = torch.full((shape[0],), 1.5, device=device) if with_limits else None
    random = torch.Generator().manual_seed(3)
    row_slopes, column_slopes = (
        torch.randn(len(exponents), size, generator=random).to(device) for size in shape
    )
    leaf = logits.double().where(logits > -torch.inf, -500.0).requires_grad_()
    kept = limited(logits, limits) > -torch.inf
    total, logs = 0.0, []
    for dim, slopes in ((1, row_slopes), (0, column_slopes)):
        by_exponent = [log_sum(leaf.where(kept, -500.0), dim=dim, exponent=p) for p in exponents]
        logs.append(torch.stack(by_exponent).detach().float())
        if dim == 1 or symmetric:
            total = total + weighted(torch.stack(by_exponent), slopes)
    wanted = torch.autograd.grad(total, leaf)[0].where(kept, 0.0)
    out = torch.empty_like(logits)
    terms = {"column_logs": logs[1], "column_slopes": column_slopes} if symmetric else {}
    tile_slopes(
        logits, out, row_logs=logs[0], row_slopes=row_slopes, exponents=exponents, limits=limits, **terms
    )
    assert gap(out, wanted) < 1e-5
    assert (out[~kept] == 0).all()


def slopes_into(out, logits):
    rows, _ = sums(logits, (1.0,), symmetric=False)
    row_logs = rows.logs((1.0,))
    tile_slopes(logits, out, row_logs=row_logs, row_slopes=torch.ones_like(row_logs))
    return out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_slopes_come_in_the_dtype_of_the_products(dtype, device):
    logits = draw_logits(30, 40, device=device)
    exact = slopes_into(torch.empty_like(logits), logits)
    found = slopes_into(torch.empty_like(logits, dtype=dtype), logits)
    info = torch.finfo(dtype)
    # The interpreter cuts bf16 off where a GPU rounds; the smallest fp16 have fewer digits.
    assert found.dtype == dtype
    assert ((found.float() - exact).abs() <= info.eps * exact.clamp_min(info.tiny)).all()


def test_slopes_may_replace_the_logits(device):
    logits = draw_logits(70, 300, device=device)
    wanted = slopes_into(torch.empty_like(logits), logits)
    assert torch.equal(slopes_into(logits, logits), wanted)


def test_a_tile_may_be_part_of_a_wider_matrix(device):
    wide, out = draw_logits(30, 90, device=device), torch.full((30, 95), 7.0, device=device)
    found = slopes_into(out[:, 5:45], wide[:, 50:])
    assert torch.equal(found, slopes_into(torch.empty(30, 40, device=device), wide[:, 50:].clone()))
    assert (out[:, :5] == 7.0).all() and (out[:, 45:] == 7.0).all()


def test_an_empty_tile_adds_nothing(device):
    rows, columns = sums(torch.empty(3, 0, device=device), (1.0,))
    assert (rows.logs((1.0,)) == -torch.inf).all() and columns.logs((1.0,)).shape == (1, 0)
    slopes_into(torch.empty(3, 0, device=device), torch.empty(3, 0, device=device))


def test_the_same_tile_gives_the_same_bits(device):
    logits = draw_logits(130, 300, device=device)
    first, second = sums(logits, (1.0, 2.0)), sums(logits, (1.0, 2.0))
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.totals, two.totals) and torch.equal(one.largest, two.largest)
