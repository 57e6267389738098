from dataclasses import replace

import pytest
import torch
from dense_logits import dense_sums, draw_case, gap, weighted
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="the kernels are Triton code: pip install 'retrieval-cl[kernels]'")

from retrieval_cl.core.kernels.flash import LARGEST_DIM, flash_gradients, flash_sums, suits
from retrieval_cl.core.kernels.walks import Blocks

# Interpreted, a block costs about 10 ms whatever its size: few and large ones.
SMALL = Blocks(rows=32, columns=32, warps=4, stages=1)
WIDE = Blocks(rows=16, columns=64, warps=4, stages=2)
SHAPES = [(37, 51, 5), (32, 64, 16), (20, 35, 100), (1, 40, 3), (40, 1, 16)]


def compare(case, *, symmetric, blocks=SMALL):
    """Differences of sums and gradients from the dense reference."""
    plan = case.plan(blocks)
    random = torch.Generator().manual_seed(1)
    row_slopes = torch.randn(len(case.scaled), generator=random).to(case.scaled.device)
    column_slopes = torch.randn(len(case.vectors), generator=random).to(case.scaled.device)
    rows, columns = flash_sums(plan, case.scaled, case.vectors, symmetric=symmetric)
    terms = {"column_logs": columns, "column_slopes": column_slopes} if symmetric else {}
    found = flash_gradients(plan, case.scaled, case.vectors, row_logs=rows, row_slopes=row_slopes, **terms)
    wanted_rows, wanted_columns, leaves = dense_sums(case)
    total = weighted(wanted_rows, row_slopes)
    differences = [gap(rows, wanted_rows)]
    if symmetric:
        total = total + weighted(wanted_columns, column_slopes)
        differences.append(gap(columns, wanted_columns))
    wanted = torch.autograd.grad(total, leaves)
    return differences + [gap(one, other) for one, other in zip(found, wanted, strict=True)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_and_gradients_equal_the_dense_reference(shape, device):
    assert max(compare(draw_case(*shape, device=device), symmetric=True)) < 1e-5


def test_one_direction_alone_equals_the_dense_reference(device):
    assert max(compare(draw_case(37, 51, 5, device=device), symmetric=False)) < 1e-5


@pytest.mark.parametrize(("share", "blocks"), [(0.0, SMALL), (0.02, WIDE), (0.5, SMALL)], ids=str)
def test_any_share_of_barred_pairs_is_left_out(share, blocks, device):
    case = draw_case(18, 70, 8, share=share, seed=2, device=device)
    assert max(compare(case, symmetric=True, blocks=blocks)) < 1e-5


def test_a_block_with_every_pair_barred_twice_is_nobodys(device):
    case = draw_case(40, 70, 8, share=0.0, device=device)
    rows, columns = torch.arange(32, 40), torch.arange(32, 64)
    pairs = torch.cartesian_prod(rows, columns).repeat(2, 1).to(device)
    case = replace(case, anchors=pairs[:, 0], columns=pairs[:, 1])
    assert case.barred.sum() == 8 * 32
    assert max(compare(case, symmetric=True)) < 1e-5


def test_an_anchor_without_negatives_has_no_sum_and_no_gradient(device):
    case = draw_case(20, 40, 8, share=0.0, device=device)
    columns = torch.arange(40, device=device)
    case = replace(case, anchors=torch.full_like(columns, 17), columns=columns)
    rows, columns = flash_sums(case.plan(SMALL), case.scaled, case.vectors, symmetric=True)
    assert (rows == -torch.inf).nonzero().tolist() == [[17]]
    ones = torch.ones_like(rows), torch.ones_like(columns)
    grad, _ = flash_gradients(
        case.plan(SMALL),
        case.scaled,
        case.vectors,
        row_logs=rows,
        row_slopes=ones[0],
        column_logs=columns,
        column_slopes=ones[1],
    )
    assert (grad == 0).all(1).nonzero().tolist() == [[17]]


def test_padding_has_no_sum_and_no_gradient(device):
    case = draw_case(20, 40, 8, share=0.3, device=device)
    rows, columns = flash_sums(case.plan(SMALL), case.scaled, case.vectors, symmetric=True)
    _, grad = flash_gradients(
        case.plan(SMALL), case.scaled, case.vectors, row_logs=rows, row_slopes=torch.ones_like(rows)
    )
    assert 0 < int(case.padding.sum()) < 40
    assert (columns[case.padding] == -torch.inf).all() and (grad[case.padding] == 0).all()


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1e2])
def test_extreme_scales_stay_finite_and_exact(scale, device):
    # Rounding of a logit of 144 bits, 1e-5, is the relative error of its probability.
    case = draw_case(33, 40, 16, scale=scale, seed=3, device=device)
    assert max(compare(case, symmetric=True)) < (1e-4 if scale > 1 else 1e-5)


def test_a_temperature_of_a_ten_thousandth_gives_finite_numbers(device):
    case = draw_case(33, 40, 16, scale=1e4, seed=3, device=device)
    rows, columns = flash_sums(case.plan(SMALL), case.scaled, case.vectors, symmetric=True)
    wanted_rows, wanted_columns, _ = dense_sums(case)
    assert gap(rows, wanted_rows) < 1e-6 and gap(columns, wanted_columns) < 1e-6
    grads = flash_gradients(
        case.plan(SMALL), case.scaled, case.vectors, row_logs=rows, row_slopes=torch.ones_like(rows)
    )
    assert all(grad.isfinite().all() for grad in grads)


def test_columns_are_split_where_anchors_are_few(device):
    case = draw_case(10, 120, 8, device=device)
    plan = case.plan(SMALL)
    assert plan.by_anchors.splits > 1
    assert max(compare(case, symmetric=True)) < 1e-5


def test_sums_over_other_columns_enter_through_the_logs(device):
    # A bank of two parts: gradients of one part take log-sum-exps of both.
    case = draw_case(20, 40, 8, share=0.0, device=device)
    low, high = (
        replace(case, vectors=part, padding=pad)
        for part, pad in zip(case.vectors.split(25), case.padding.split(25), strict=True)
    )
    logs = [
        flash_sums(part.plan(SMALL), part.scaled, part.vectors, symmetric=False)[0] for part in (low, high)
    ]
    ones = torch.ones(20, device=device)
    grads = [
        flash_gradients(
            part.plan(SMALL), part.scaled, part.vectors, row_logs=torch.logaddexp2(*logs), row_slopes=ones
        )
        for part in (low, high)
    ]
    rows, _, leaves = dense_sums(case)
    on_scaled, on_vectors = torch.autograd.grad(rows.sum(), leaves)
    assert gap(grads[0][0] + grads[1][0], on_scaled) < 1e-5
    assert gap(torch.cat([grads[0][1], grads[1][1]]), on_vectors) < 1e-5


def test_rows_may_lie_apart(device):
    case = draw_case(20, 40, 8, device=device)
    apart = replace(
        case,
        scaled=torch.cat([case.scaled, case.scaled], dim=1)[:, :8],
        vectors=torch.cat([case.vectors, case.vectors], dim=1)[:, 8:],
    )
    assert max(compare(apart, symmetric=True)) < 1e-5


def test_what_is_not_needed_is_not_computed(device):
    case = draw_case(20, 40, 8, device=device)
    plan = case.plan(SMALL)
    rows, columns = flash_sums(plan, case.scaled, case.vectors, symmetric=False)
    assert len(columns) == 0
    terms = {"row_logs": rows, "row_slopes": torch.ones_like(rows)}
    grads = flash_gradients(plan, case.scaled, case.vectors, **terms, needs_vectors=False)
    assert grads[0] is not None and grads[1] is None
    # Nor were pairs sorted for programs that never ran.
    assert "by_columns" not in vars(plan)
    assert flash_gradients(plan, case.scaled, case.vectors, **terms, needs_anchors=False)[0] is None


@pytest.mark.parametrize("shape", [(0, 5, 4), (5, 0, 4)], ids=str)
def test_an_empty_side_gives_sums_over_nothing(shape, device):
    case = draw_case(*shape, device=device)
    rows, columns = flash_sums(case.plan(SMALL), case.scaled, case.vectors, symmetric=True)
    assert (rows == -torch.inf).all() and (columns == -torch.inf).all()
    grads = flash_gradients(
        case.plan(SMALL), case.scaled, case.vectors, row_logs=rows, row_slopes=torch.ones_like(rows)
    )
    assert [grad.shape for grad in grads] == [case.scaled.shape, case.vectors.shape]
    assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype, device):
    case = draw_case(33, 40, 16, dtype=dtype, device=device)
    differences = compare(case, symmetric=True)
    # On a GPU slopes are rounded to the dtype of the products.
    assert max(differences[:2]) < 1e-5 and max(differences[2:]) < 4 * torch.finfo(dtype).eps


def test_the_same_input_gives_the_same_bits(device):
    case = draw_case(20, 45, 16, seed=5, device=device)

    def results():
        rows, columns = flash_sums(case.plan(), case.scaled, case.vectors, symmetric=True)
        terms = {"column_logs": columns, "column_slopes": columns.exp2()}
        grads = flash_gradients(
            case.plan(), case.scaled, case.vectors, row_logs=rows, row_slopes=rows.exp2(), **terms
        )
        return rows, columns, *grads

    assert all(torch.equal(one, two) for one, two in zip(results(), results(), strict=True))


class Watch(TorchDispatchMode):
    """Notes the bytes of the largest tensor that any operation gives back."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        return out


def test_no_tensor_of_anchors_times_columns_is_ever_made(device):
    case = draw_case(256, 256, 4, share=0.001, device=device)
    with Watch() as watch:
        plan = case.plan(Blocks(rows=128, columns=128, warps=4, stages=1))
        rows, columns = flash_sums(plan, case.scaled, case.vectors, symmetric=True)
        terms = {"row_slopes": rows.exp2(), "column_logs": columns, "column_slopes": columns.exp2()}
        flash_gradients(plan, case.scaled, case.vectors, row_logs=rows, **terms)
    gradient = 256 * 4 * 4 * max(plan.by_anchors.splits, plan.by_columns.splits)
    assert gradient <= watch.largest < 2 * gradient < 256 * 256 * 4 // 8


def test_small_dims_in_half_precision_suit():
    assert suits(256, torch.bfloat16) and suits(100, torch.float16)
    assert not suits(384, torch.bfloat16) and not suits(64, torch.float32)


def test_dims_beyond_the_limit_are_refused():
    with pytest.raises(AssertionError, match=f"above {LARGEST_DIM}"):
        draw_case(2, 2, LARGEST_DIM + 1, share=0.0).plan()
