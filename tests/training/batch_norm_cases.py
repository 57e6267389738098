"""BatchNorm and shuffled keys over ranks: what each of several ranks checks against one process."""

import torch
from torch import nn

from retrieval_cl.core.ranks import average_gradients, gather_values
from retrieval_cl.encoders.batch_norm import SyncBatchNorm, average_statistics, convert_norms
from retrieval_cl.methods.image_tower import shuffled

SHAPES = {"vectors": (8, 5), "images": (8, 5, 3, 2)}


def draw(*shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def share(rows, *, rank, world):
    return rows.chunk(world)[rank]


def assert_near(found, expected, *, tolerance=1e-12):
    assert (found - expected).abs().max() <= tolerance * expected.abs().max(), (found, expected)


def network(norm_1d=nn.BatchNorm1d, norm_2d=nn.BatchNorm2d):
    torch.manual_seed(0)
    layers = [nn.Conv2d(5, 4, 2), norm_2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 6), norm_1d(6)]
    return nn.Sequential(*layers).double()


def check_layer(shape, *, rank, world, dtype, tolerance):
    """Outputs, gradients and running statistics of a layer, in two steps and in evaluation mode."""
    torch.manual_seed(1)
    whole = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(5, dtype=dtype)
    nn.init.normal_(whole.weight), nn.init.normal_(whole.bias)
    shared = SyncBatchNorm(5, dtype=dtype)
    shared.load_state_dict(whole.state_dict())
    for step in range(2):
        # A large mean: sums of squares would lose the variance in float32.
        rows = (draw(*shape, seed=step, dtype=dtype) * (step + 1) + 30 * step).requires_grad_()
        own = share(rows, rank=rank, world=world).detach().requires_grad_()
        pull = draw(*shape, seed=99, dtype=dtype)
        expected, found = whole(rows), shared(own)
        # The mean over all rows is the mean over ranks of their means.
        (expected * pull).sum().div(shape[0]).backward()
        (found * share(pull, rank=rank, world=world)).sum().div(shape[0] / world).backward()
        average_gradients(shared.parameters())
        assert_near(found, share(expected, rank=rank, world=world), tolerance=tolerance)
        assert_near(own.grad / world, share(rows.grad, rank=rank, world=world), tolerance=tolerance)
        for name, parameter in shared.named_parameters():
            assert_near(parameter.grad, whole.get_parameter(name).grad, tolerance=tolerance)
        for name, buffer in shared.named_buffers():
            assert_near(buffer, whole.get_buffer(name), tolerance=tolerance)
    rows = rows.detach()[:3]
    assert_near(shared.eval()(rows).detach(), whole.eval()(rows).detach(), tolerance=tolerance)


def check_training(*, rank, world):
    """A converted network trains to the weights that one process finds with the whole batch."""
    whole, shared = network(), convert_norms(network(), SyncBatchNorm)
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1) for module in (whole, shared)]
    for step in range(3):
        rows, pull = draw(8, 5, 3, 2, seed=step), draw(8, 6, seed=50 + step)
        (whole(rows) * pull).sum(1).mean().backward()
        own = shared(share(rows, rank=rank, world=world))
        (own * share(pull, rank=rank, world=world)).sum(1).mean().backward()
        average_gradients(shared.parameters())
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for name, value in whole.state_dict().items():
        assert_near(shared.state_dict()[name], value, tolerance=1e-11)


def check_half_precision(*, rank, world):
    rows = draw(8, 5, seed=0, dtype=torch.float32).bfloat16()
    found = SyncBatchNorm(5)(share(rows, rank=rank, world=world))
    assert found.dtype == torch.bfloat16
    assert_near(found.float(), share(nn.BatchNorm1d(5)(rows.float()), rank=rank, world=world), tolerance=1e-2)


def check_shuffle(*, rank, world):
    """Keys come back in their order; in between, rows of all ranks stand together, each once."""
    rows = draw(6, 3, 1, 1, seed=0).abs() + 100 * rank
    seen = []

    def remember(pixels):
        seen.append(pixels)
        return pixels.flatten(1)

    # Generators of ranks differ, the order does not.
    torch.manual_seed(rank)
    assert torch.equal(shuffled(remember, rows), rows.flatten(1))
    assert len({float(row[0] // 100) for row in seen[0].flatten(1)}) == world
    everyone = gather_values(seen[0]).flatten().sort().values
    assert torch.equal(everyone, gather_values(rows).flatten().sort().values)


def check_average(*, rank, world):
    """Running statistics of ranks that saw their own rows become one: the means over ranks."""
    alone = [network() for _ in range(world)]
    for number, module in enumerate(alone):
        module(share(draw(8, 5, 3, 2, seed=0), rank=number, world=world))
    names = [name for name, _ in alone[0].named_buffers() if "running" in name]
    seen = {name: torch.stack([module.get_buffer(name) for module in alone]) for name in names}
    average_statistics(alone[rank])
    assert len(names) == 4 and all((values[0] - values[1]).abs().max() > 0.01 for values in seen.values())
    for name, values in seen.items():
        assert_near(alone[rank].get_buffer(name), values.mean(0))
    average_statistics(nn.Linear(2, 2))


def check_batch_norm(rank, *, world):
    for shape in SHAPES.values():
        check_layer(shape, rank=rank, world=world, dtype=torch.float64, tolerance=1e-12)
    check_layer(SHAPES["images"], rank=rank, world=world, dtype=torch.float32, tolerance=1e-5)
    check_training(rank=rank, world=world)
    check_average(rank=rank, world=world)
    check_half_precision(rank=rank, world=world)
    check_shuffle(rank=rank, world=world)
