import pytest
import torch
from image_methods import ImageTower, build_batch, build_byol
from torch.nn.functional import mse_loss, normalize

from retrieval_cl.core.alignment import alignment
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.momentum import constant_momentum
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.byol import BYOL
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.image_tower import views_together


def in_double(**options):
    return build_byol(**options).double(), build_batch((10, 11, 12, 11), dtype=torch.float64)


def test_loss_equals_a_slow_loop():
    """Eq. 2, 2 - 2 <q, z'> / (|q| |z'|), of each image in both directions."""
    method, batch = in_double()
    expected = []
    with torch.no_grad():
        online, slow = (
            {kind: network(batch.views[kind].inputs.values) for kind in ("view_a", "view_b")}
            for network in (lambda pixels: method.predictor(method.branch(pixels)), method.twin.module)
        )
    for i in range(4):
        total = 0.0
        for one, other in (("view_a", "view_b"), ("view_b", "view_a")):
            q, z = online[one][i], slow[other][i]
            total += 2 - 2 * float(q @ z) / float(q.norm() * z.norm())
        expected.append(total)
    found = method.loss(method.embed(batch), batch)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_loss_is_that_of_the_paper():
    """Eq. 2 as it is written: the squared distance of normalised predictions and targets, both ways."""
    method, batch = in_double()
    found = method.embed(batch)

    def regression(prediction, target):
        return mse_loss(normalize(prediction, dim=1), normalize(target, dim=1), reduction="sum") / 4

    expected = regression(found["prediction_a"], found["target_b"]) + regression(
        found["prediction_b"], found["target_a"]
    )
    torch.testing.assert_close(method.loss(found, batch).mean(), expected, rtol=1e-12, atol=0)


def test_mean_of_both_directions_is_half_the_sum():
    whole, batch = in_double()
    half, _ = in_double(loss_factor=1.0)
    found = whole.embed(batch)
    torch.testing.assert_close(whole.loss(found, batch), 2 * half.loss(found, batch))


def test_gradient_stops_at_the_targets():
    """Even where targets come with gradient, as a gradient cache hands them over."""
    method, batch = in_double()
    found = {name: vectors.detach().requires_grad_() for name, vectors in method.embed(batch).items()}
    method.loss(found, batch).mean().backward()
    assert all(found[f"prediction_{view}"].grad.abs().sum() > 0 for view in "ab")
    assert all(found[f"target_{view}"].grad is None for view in "ab")
    method.loss(method.embed(batch), batch).mean().backward()
    assert all(parameter.grad is None for parameter in method.twin.parameters())
    assert all(parameter.grad is not None for parameter in method.branch.parameters())


def test_no_negative_is_drawn():
    """Another image's vectors play no part: with all others replaced, an anchor's loss stays."""
    method, batch = in_double()
    found = method.embed(batch)
    changed = {name: torch.cat([vectors[:1], torch.randn(3, 6).double()]) for name, vectors in found.items()}
    assert torch.equal(method.loss(changed, batch)[0], method.loss(found, batch)[0])
    described = method.describe(found, batch)
    assert described.negative_score == described.ignored == 0.0


def test_order_of_images_does_not_matter():
    method, batch = in_double()
    order = [2, 0, 3, 1]
    found = method.embed(batch)
    moved = {name: vectors[order] for name, vectors in found.items()}
    torch.testing.assert_close(method.loss(moved, batch), method.loss(found, batch)[order])


def test_target_network_takes_its_own_statistics():
    method, batch = build_byol(norm=True), build_batch()
    with torch.no_grad():
        method.branch.encoder.layer.weight.mul_(3.0)
    method.embed(batch)
    online, slow = method.encoder.norm, method.twin.module.encoder.norm
    assert not torch.allclose(online.running_mean, slow.running_mean, rtol=0.1)
    held = slow.running_mean.clone()
    method.after_step({}, batch, 0.0)
    assert torch.equal(slow.running_mean, held)
    pixels = batch.views["view_b"].inputs.values
    hidden = slow.train()(method.twin.module.encoder.layer(pixels.flatten(1)))
    torch.testing.assert_close(hidden.mean(dim=0), slow.bias, rtol=0, atol=1e-5)


def test_twin_follows_and_the_predictor_has_none():
    method, batch = build_byol(momentum=0.75), build_batch()
    before = method.branch.projector.weight.detach().clone()
    with torch.no_grad():
        method.branch.projector.weight.add_(1.0)
    method.after_step({}, batch, 0.0)
    torch.testing.assert_close(method.twin.module.projector.weight, before + 0.25)
    assert [name for name, _ in method.named_parameters() if "predictor" in name] == [
        "predictor.weight",
        "predictor.bias",
    ]


def test_config_is_obeyed():
    torch.manual_seed(0)
    config = MethodConfig(name="byol", projector={"dim": 5, "hidden": 9}, views_together=True)
    method = BYOL.build(config, ImageTower())
    assert [m.out_features for m in method.predictor.modules() if isinstance(m, torch.nn.Linear)] == [4096, 5]
    assert method.branch.projector.layers[0].out_features == 9
    assert method.objective is alignment and method.loss_factor == 2.0
    assert method._embed_views is views_together
    before = method.twin.module.projector.layers[0].weight.clone()
    for progress, share in ((0.0, 0.01), (0.5, 0.005), (1.0, 0.0)):
        with torch.no_grad():
            method.branch.projector.layers[0].weight.copy_(before + 1.0)
            method.twin.module.projector.layers[0].weight.copy_(before)
        method.after_step({}, build_batch(), progress)
        torch.testing.assert_close(
            method.twin.module.projector.layers[0].weight - before,
            torch.full_like(before, share),
            atol=1e-6,
            rtol=0,
        )


def test_without_a_predictor_it_takes_the_projection():
    """What collapses is not forbidden: the monitor is there to see it."""
    config = MethodConfig(
        name="byol", predictor=None, projector={"dim": 5, "hidden": 9, "hidden_norm": False}
    )
    method, batch = BYOL.build(config, ImageTower()), build_batch()
    found = method.embed(batch)
    assert torch.equal(found["prediction_a"], found["target_a"])
    assert not found["target_a"].requires_grad


def test_positives_alone_collapse_without_predictor_and_slow_twin():
    """Why both are there: a twin without delay and no predictor leave one vector for all images."""
    method = BYOL(build_byol().branch, momentum=constant_momentum(0.0))
    batch = build_batch(range(16))
    optimizer = torch.optim.SGD(method.branch.parameters(), lr=1.0)
    first = method.loss(method.embed(batch), batch).mean()
    for _ in range(60):
        found = method.embed(batch)
        optimizer.zero_grad()
        method.loss(found, batch).mean().backward()
        optimizer.step()
        method.after_step(found, batch, 0.0)
    rows = method.embed(batch)["prediction_a"].detach()
    assert method.loss(method.embed(batch), batch).mean() < 0.05 * first
    assert (rows @ rows.T).mean() > 0.95


def test_a_part_of_the_views_gives_a_part_of_the_embeddings():
    method, batch = in_double()
    whole = method.embed(batch)
    found = method.embed(Batch({"view_b": batch.views["view_b"]}, batch.known))
    assert found.keys() == {"prediction_b", "target_b"}
    for name, vectors in found.items():
        torch.testing.assert_close(vectors, whole[name])


def test_impossible_prediction_is_refused():
    config = MethodConfig(name="byol", projector={"dim": 8}, predictor={"dim": 9})
    with pytest.raises(InputError, match=r"predictor\.dim is 9, but the projector gives 8"):
        BYOL.build(config, ImageTower())
