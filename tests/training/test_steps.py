import pytest
import torch

from retrieval_cl.training.device import cast_to
from retrieval_cl.training.steps import limit_gradients, plain_step

CPU = torch.device("cpu")


@pytest.fixture
def batch(make_source):
    return next(make_source().batches(None, seed=0, round=0, num_steps=3, start_step=0, rank=0, world=1))


def test_gradient_is_that_of_the_mean_loss(make_method, batch):
    method = make_method(dropout=0.0)
    loss, embeddings = plain_step(method, batch, cast_to("fp32", CPU))
    found = {name: p.grad.clone() for name, p in method.named_parameters()}
    method.zero_grad()
    expected = method.loss(method.embed(batch), batch).sum() / 4
    expected.backward()
    assert loss == expected.detach()
    assert not loss.requires_grad
    assert set(embeddings) == {"query", "positive"}
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=name)


def test_bf16_gives_nearly_the_same_loss_and_float32_gradients(make_method, batch):
    exact, short = make_method(dropout=0.0), make_method(dropout=0.0)
    expected, _ = plain_step(exact, batch, cast_to("fp32", CPU))
    found, embeddings = plain_step(short, batch, cast_to("bf16", CPU))
    assert found != expected
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    assert {p.grad.dtype for p in short.parameters()} == {torch.float32}
    assert {vectors.dtype for vectors in embeddings.values()} == {torch.float32}


def test_gradients_are_scaled_to_the_limit_and_kept_below_it(make_method, batch):
    method = make_method(dropout=0.0)
    plain_step(method, batch, cast_to("fp32", CPU))
    before = torch.cat([p.grad.flatten() for p in method.parameters()])
    norm = before.norm().item()
    assert limit_gradients(method, None) == pytest.approx(norm)
    assert limit_gradients(method, norm * 2) == pytest.approx(norm)
    assert torch.equal(torch.cat([p.grad.flatten() for p in method.parameters()]), before)
    assert limit_gradients(method, norm / 2) == pytest.approx(norm)
    after = torch.cat([p.grad.flatten() for p in method.parameters()])
    torch.testing.assert_close(after, before / 2, rtol=1e-4, atol=1e-6)
