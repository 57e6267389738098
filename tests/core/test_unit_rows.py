import pytest
import torch

from retrieval_cl.core.unit_rows import unit_rows


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def test_rows_are_over_their_length():
    rows = draw(5, 4)
    wanted = rows / rows.square().sum(dim=1, keepdim=True).sqrt()
    assert torch.allclose(unit_rows(rows), wanted, rtol=1e-15, atol=0)


def test_gradients_pass_gradcheck():
    assert torch.autograd.gradcheck(unit_rows, [draw(4, 3).requires_grad_()])


@pytest.mark.parametrize("length", [1e-36, 1e-25, 1e25, 1e37])
def test_length_changes_nothing_in_float32(length):
    rows = draw(5, 4, dtype=torch.float32)
    stretched = (rows.double() * length).float().requires_grad_()
    unit = unit_rows(stretched)
    assert torch.allclose(unit, unit_rows(rows), rtol=1e-5)
    (gradient,) = torch.autograd.grad((unit * draw(5, 4).float()).sum(), stretched)
    wanted = rows.double().requires_grad_()
    (reference,) = torch.autograd.grad((unit_rows(wanted) * draw(5, 4)).sum(), wanted)
    # The gradient shrinks as the row grows.
    assert torch.allclose(gradient.double() * length, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("entry", [0.0, 1e-45])
def test_a_zero_row_stays_zero_and_gets_no_gradient(entry):
    rows = draw(3, 4, dtype=torch.float32)
    rows[1] = entry
    rows.requires_grad_()
    unit = unit_rows(rows)
    (gradient,) = torch.autograd.grad((unit * torch.arange(4.0)).sum(), rows)
    assert bool((unit[1].abs() < 1e-30).all())
    assert torch.equal(gradient[1], torch.zeros(4))
    assert bool(gradient.isfinite().all()) and bool((gradient[[0, 2]] != 0).any())


def test_what_is_not_finite_is_not_hidden():
    rows = draw(3, 4)
    rows[0, 0], rows[1, 0] = torch.nan, torch.inf
    unit = unit_rows(rows)
    assert unit.isnan().any(dim=1).tolist() == [True, True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    rows = draw(5, 40, dtype=dtype)
    unit = unit_rows(rows)
    assert unit.dtype == torch.float32
    assert torch.allclose(unit.double(), unit_rows(rows.double()), rtol=1e-6)
