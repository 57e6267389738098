"""One process. What two ranks do together is told in tests/training/batch_norm_cases.py."""

from functools import partial

import pytest
import torch
from torch import nn

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.batch_norm import SplitBatchNorm, SyncBatchNorm, convert_norms

SHAPES = [(12, 5), (12, 5, 3, 2)]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(shape):
    torch.manual_seed(3)
    norm = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(5, eps=1e-3, momentum=0.3).double()
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    return norm


def same_weights(norm, kind, **options):
    other = kind(5, eps=norm.eps, momentum=norm.momentum, **options).double()
    other.load_state_dict(norm.state_dict())
    return other


def slow_split(rows, norm, *, splits):
    """Each part through a layer of its own; outputs, and the means of the layers' running statistics."""
    parts = [same_weights(norm, type(norm)) for _ in range(splits)]
    found = torch.empty_like(rows)
    for number, part in enumerate(parts):
        found[number::splits] = part(rows[number::splits])
    means = torch.stack([part.running_mean for part in parts]).mean(0)
    return found, means, torch.stack([part.running_var for part in parts]).mean(0)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_one_process_sync_is_batch_norm_to_the_bit(shape):
    norm = plain(shape)
    other = same_weights(norm, SyncBatchNorm)
    rows = draw(*shape)
    assert torch.equal(norm(rows), other(rows))
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), other.buffers(), strict=True))
    assert torch.equal(norm.eval()(rows), other.eval()(rows))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("splits", [1, 2, 3])
def test_parts_are_normalised_as_if_alone(shape, splits):
    norm = plain(shape)
    split = same_weights(norm, SplitBatchNorm, num_splits=splits)
    rows, same_rows, pull = draw(*shape).requires_grad_(), draw(*shape).requires_grad_(), draw(*shape, seed=1)
    expected, mean, variance = slow_split(rows, norm, splits=splits)
    found = split(same_rows)
    (found * pull).sum().backward()
    (expected * pull).sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(same_rows.grad, rows.grad, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(split.running_mean, mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(split.running_var, variance, rtol=1e-12, atol=1e-14)
    assert split.num_batches_tracked == 1
    if splits > 1:
        assert (found - norm(rows)).abs().max() > 0.01, "the whole batch has other statistics"


def test_parts_make_no_difference_in_evaluation():
    norm = plain((12, 5))
    split = same_weights(norm, SplitBatchNorm, num_splits=4).eval()
    rows = draw(7, 5)
    assert torch.equal(split(rows), norm.eval()(rows))
    assert split.num_batches_tracked == 0


def test_layout_of_images_stays():
    split = SplitBatchNorm(5, num_splits=2).double()
    images = draw(4, 5, 3, 2)
    plain_layout, last = split(images), split(images.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last) and plain_layout.is_contiguous()
    assert torch.equal(plain_layout, last)


def test_batch_that_does_not_split_is_refused():
    with pytest.raises(InputError, match=r"10 rows do not split into 4 equal parts.*multiple of 4"):
        SplitBatchNorm(5, num_splits=4)(torch.zeros(10, 5))
    with pytest.raises(ValueError, match="more than 1 value"):
        SplitBatchNorm(5, num_splits=4)(torch.zeros(4, 5))


@pytest.mark.parametrize("make", [SyncBatchNorm, partial(SplitBatchNorm, num_splits=2)])
def test_conversion_keeps_weights_buffers_mode_and_the_other_layers(make):
    torch.manual_seed(0)
    twice = nn.BatchNorm1d(6, affine=False)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4, eps=0.1, momentum=0.5),
        nn.Flatten(),
        nn.Linear(16, 6),
        twice,
        twice,
    ).double()
    module(draw(4, 3, 2, 2))
    module[4].eval()
    before, keys = dict(module.named_parameters()), module.state_dict()
    assert convert_norms(module, make) is module
    assert type(module[1]) is type(module[4]) is (make if make is SyncBatchNorm else SplitBatchNorm)
    assert module[4] is module[5] and not module[4].training and module[1].training
    assert (module[1].eps, module[1].momentum, module[4].affine) == (0.1, 0.5, False)
    assert all(parameter is before[name] for name, parameter in module.named_parameters())
    assert all(torch.equal(value, keys[name]) for name, value in module.state_dict().items())
    assert module.state_dict().keys() == keys.keys()
    assert type(convert_norms(nn.BatchNorm1d(3), make)) is type(module[1])


def test_cumulative_average_is_refused():
    with pytest.raises(AssertionError, match="cumulative"):
        SplitBatchNorm(5, num_splits=2, momentum=None)(torch.randn(4, 5))
