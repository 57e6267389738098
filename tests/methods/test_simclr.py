import math
from functools import partial

import pytest
import torch
from image_methods import ImageTower, build_batch, build_simclr
from torch.nn.functional import cross_entropy, normalize

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.losses import info_nce
from retrieval_cl.core.views import Batch, Pixels, View
from retrieval_cl.encoders.batch_norm import SplitBatchNorm, SyncBatchNorm
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.image_tower import views_together
from retrieval_cl.methods.simclr import SimCLR
from retrieval_cl.training.leaks import check_leaks

TEMPERATURE = 0.5


def in_double(**options):
    """A method in float64 and its temperature, which was rounded to float32 when it was made."""
    method = build_simclr(temperature=TEMPERATURE, **options).double()
    temperature = 1 / method.temperature.scale().item()
    assert temperature == pytest.approx(TEMPERATURE, rel=1e-6)
    return method, temperature


def slow_loss(found, batch, *, private=False, temperature=TEMPERATURE):
    """NT-Xent (eq. 1), one pair at a time, in float64; images of one id are never each other's negatives."""
    views = torch.cat([found["view_a"], found["view_b"]]).detach().double()
    negatives = found.get("negative", torch.zeros(0, 1)).detach().double()
    ids = batch.views["view_a"].ids.tolist()
    negative_ids = batch.views["negative"].ids.tolist() if len(negatives) else []
    num_images, losses = len(ids), []
    per_image = len(negatives) // num_images
    for i in range(2 * num_images):
        image, partner = i % num_images, (i + num_images) % (2 * num_images)
        target = float(views[i] @ views[partner]) / temperature
        others = [
            float(views[i] @ views[k]) / temperature
            for k in range(2 * num_images)
            if ids[k % num_images] != ids[image]
        ]
        others += [
            float(views[i] @ negatives[k]) / temperature
            for k, item in enumerate(negative_ids)
            if item not in (-1, ids[image]) and (not private or k // per_image == image)
        ]
        losses.append(math.log(sum(map(math.exp, [target, *others]))) - target)
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("ids", [(10, 11, 12, 13), (10, 11, 12, 11), (10, 10, 12, 12, 12)])
@pytest.mark.parametrize(("per_image", "private"), [(0, False), (2, False), (2, True)])
def test_loss_equals_a_slow_loop(ids, per_image, private):
    method, temperature = in_double(private_negatives=private)
    batch = build_batch(ids, per_image=per_image, dtype=torch.float64)
    found = method.embed(batch)
    loss = method.loss(found, batch)
    expected = slow_loss(found, batch, private=private, temperature=temperature)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)


def test_loss_is_nt_xent_as_published():
    """Algorithm 1: the mean over 2N rows of cross-entropy, every row's own column taken out."""
    (method, temperature), batch = in_double(), build_batch(range(8), dtype=torch.float64)
    found = method.embed(batch)
    rows = torch.cat([found["view_a"], found["view_b"]])
    logits = (rows @ rows.T / temperature).fill_diagonal_(-torch.inf)
    expected = cross_entropy(logits, (torch.arange(16) + 8) % 16)
    torch.testing.assert_close(method.loss(found, batch).mean(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("num_images", [2, 3, 17])
def test_identical_rows_give_the_log_of_2n_minus_1(num_images):
    method, batch = build_simclr(), build_batch(range(num_images))
    row = normalize(torch.randn(1, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    found = {kind: row.expand(num_images, -1) for kind in ("view_a", "view_b")}
    expected = torch.full((2 * num_images,), math.log(2 * num_images - 1))
    torch.testing.assert_close(method.loss(found, batch), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_orthonormal_images_reach_the_closed_form_floor(temperature):
    method, batch = build_simclr(temperature=temperature), build_batch(range(5))
    found = {kind: torch.eye(5) for kind in ("view_a", "view_b")}
    floor = math.log1p(8 * math.exp(-1 / temperature))
    torch.testing.assert_close(method.loss(found, batch), torch.full((10,), floor), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 0.0112, 10.0])
def test_loss_and_gradient_are_finite_at_any_temperature(temperature):
    """Where exponentials are taken without a shift, float32 overflows at 0.0112 already."""
    method, batch = build_simclr(temperature=temperature), build_batch()
    row = normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    found = {"view_a": row.requires_grad_(), "view_b": row.detach().clone().requires_grad_()}
    loss = method.loss(found, batch)
    loss.mean().backward()
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(vectors.grad).all() for vectors in found.values())


def test_copies_of_an_image_are_no_negatives():
    """Alone with its copies an anchor has no negative at all."""
    method, batch = build_simclr(), build_batch((7, 7, 7))
    assert torch.equal(method.loss(method.embed(batch), batch), torch.zeros(6))


def test_known_near_duplicate_under_another_id_is_no_negative():
    method, batch = build_simclr(), build_batch((7, 8, 9))
    found = method.embed(batch)
    known = torch.tensor([[7, 8], [8, 7], [9, -1]])
    paired = method.loss(found, Batch(batch.views, known))
    expected = slow_loss(found, build_batch((7, 7, 9)))
    torch.testing.assert_close(paired.double(), expected, rtol=1e-5, atol=1e-6)


def test_order_of_images_and_of_views_does_not_matter():
    method, batch = build_simclr(), build_batch((10, 11, 12, 11), per_image=2)
    order = torch.tensor([2, 0, 3, 1])
    places = {"view_a": order, "view_b": order, "negative": (order[:, None] * 2 + torch.arange(2)).flatten()}
    moved = {
        kind: View(Pixels(view.inputs.values[places[kind]]), view.ids[places[kind]])
        for kind, view in batch.views.items()
    }
    swapped = {**moved, "view_a": moved["view_b"], "view_b": moved["view_a"]}
    first = method.loss(method.embed(batch), batch)
    for views, both in ((moved, torch.cat([order, order + 4])), (swapped, torch.cat([order + 4, order]))):
        other = Batch(views, batch.known[order])
        torch.testing.assert_close(method.loss(method.embed(other), other), first[both])


def test_views_in_one_pass_give_the_same_rows_without_batch_norm():
    batch = build_batch(per_image=2)
    apart, together = build_simclr(), build_simclr(embed_views=views_together)
    found, expected = together.embed(batch), apart.embed(batch)
    assert list(found) == list(expected)
    for kind, vectors in expected.items():
        torch.testing.assert_close(found[kind], vectors)
    assert list(together.embed(Batch({"view_b": batch.views["view_b"]}, batch.known))) == ["view_b"]
    assert together.embed(Batch({}, batch.known)) == {}


def test_batch_norm_takes_its_statistics_of_one_view_or_of_both():
    batch = build_batch()
    apart, together = build_simclr(norm=True), build_simclr(norm=True, embed_views=views_together)
    tower = apart.encoder
    pixels = [batch.views[kind].inputs.values for kind in ("view_a", "view_b")]
    both = apart.branch.projector(tower.features(torch.cat(pixels)))
    torch.testing.assert_close(together.embed(batch)["view_b"], normalize(both, dim=1)[4:])
    alone = apart.branch.projector(tower.features(pixels[1]))
    torch.testing.assert_close(apart.embed(batch)["view_b"], normalize(alone, dim=1))
    assert not torch.allclose(both[4:], alone, rtol=1e-2)


def test_config_is_obeyed():
    batch = build_batch((10, 11, 12, 11), per_image=2)
    config = MethodConfig(
        name="simclr", temperature=0.3, negatives="private", decoupled=True, projector={"hidden_norm": False}
    )
    torch.manual_seed(0)
    built = SimCLR.build(config, ImageTower())
    plain = SimCLR(
        built.branch, built.temperature, objective=partial(info_nce, decoupled=True), private_negatives=True
    )
    found = built.embed(batch)
    assert built.branch.dim == 128 and found["view_a"].shape == (4, 128)
    assert torch.equal(built.loss(found, batch), plain.loss(found, batch))
    assert not torch.allclose(
        SimCLR(built.branch, built.temperature).loss(found, batch), plain.loss(found, batch)
    )
    assert float(built.temperature.scale()) == pytest.approx(1 / 0.3)
    assert built.encoder is built.branch.encoder
    assert (
        SimCLR.build(MethodConfig(name="simclr", views_together=True), ImageTower())._embed_views
        is views_together
    )


def test_norms_of_tower_and_head_are_those_of_the_config():
    for settings, kind in (
        ({"norm": "split", "split_batches": 2}, SplitBatchNorm),
        ({"norm": "sync"}, SyncBatchNorm),
    ):
        method = SimCLR.build(MethodConfig(name="simclr", **settings), ImageTower(norm=True))
        norms = [
            module for module in method.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        ]
        assert len(norms) == 3 and all(type(norm) is kind for norm in norms)
        assert kind is SyncBatchNorm or all(norm.num_splits == 2 for norm in norms)
        assert torch.isfinite(method.loss(method.embed(build_batch()), build_batch())).all()


def test_image_that_does_not_know_its_own_id_is_caught_before_the_first_step():
    """The id rule is the self-mask: without it an anchor is its own negative."""
    batch = build_batch()
    assert check_leaks(build_simclr(), [batch])
    with pytest.raises(InputError, match=r"part 'view_a' \(4 rows\) leaks for 4 anchor.*part 'view_b'"):
        check_leaks(build_simclr(), [Batch(batch.views, batch.known + 100)])
