import math

import pytest
import torch
from image_methods import DIM, ImageTower, build_batch, build_moco
from torch.nn.functional import cross_entropy, normalize

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.views import Batch
from retrieval_cl.encoders.batch_norm import SplitBatchNorm, convert_norms
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.image_tower import in_order, shuffled, views_together
from retrieval_cl.methods.method import Method
from retrieval_cl.methods.moco import MoCo
from retrieval_cl.training.device import cast_to
from retrieval_cl.training.leaks import check_leaks
from retrieval_cl.training.steps import cached_step


def in_double(**options):
    """A method in float64 and its temperature, which was rounded to float32 when it was made."""
    method = build_moco(**options).double()
    return method, 1 / method.temperature.scale().item()


def double_batch(ids, *, seed=0, per_image=0):
    return build_batch(ids, seed=seed, per_image=per_image, dtype=torch.float64)


def step(method, batch, progress=0.0):
    """What the loop does after the optimiser's step."""
    found = {name: vectors.detach() for name, vectors in method.embed(batch).items()}
    method.after_step(found, batch, progress)
    return found


def slow_loss(found, batch, *, asker, asked, past, temperature, in_batch=False, private=False):
    """Eq. 1, one pair at a time: `past` are (key, id) of the queue; a copy of the image is no negative."""
    ids, losses = batch.views[asked].ids.tolist(), []
    keys, mined = found[f"key_{asked[-1]}"], found.get("key_negative", torch.zeros(0, DIM))
    mined_ids = batch.views["negative"].ids.tolist() if len(mined) else []
    per_image = len(mined) // len(ids)
    for i, query in enumerate(found[f"query_{asker[-1]}"].detach()):
        candidates = list(past)
        candidates += [(key, ids[j]) for j, key in enumerate(keys) if in_batch and j != i]
        candidates += [(k, mined_ids[j]) for j, k in enumerate(mined) if not private or j // per_image == i]
        logits = [float(query @ keys[i]) / temperature]
        logits += [float(query @ key) / temperature for key, item in candidates if item not in (-1, ids[i])]
        losses.append(math.log(sum(map(math.exp, logits))) - logits[0])
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("in_batch", [False, True])
@pytest.mark.parametrize(("per_image", "private"), [(0, False), (2, False), (2, True)])
def test_loss_equals_a_slow_loop_over_queue_and_batch(symmetric, in_batch, per_image, private):
    method, temperature = in_double(
        symmetric=symmetric, in_batch_keys=in_batch, private_negatives=private, queue=50
    )
    past, batch = double_batch((10, 20, 21, 22), seed=1), double_batch((10, 11, 12, 11), per_image=per_image)
    held = step(method, past)
    names = ("key_b", "key_a") if symmetric else ("key_b",)
    queue = [(key, i) for name in names for key, i in zip(held[name], (10, 20, 21, 22), strict=True)]
    found = method.embed(batch)
    assert set(found) >= {"query_a", "key_b"} and ("query_b" in found) == ("key_a" in found) == symmetric
    options = {"past": queue, "temperature": temperature, "in_batch": in_batch, "private": private}
    expected = slow_loss(found, batch, asker="view_a", asked="view_b", **options)
    if symmetric:
        expected = (expected + slow_loss(found, batch, asker="view_b", asked="view_a", **options)) / 2
    torch.testing.assert_close(method.loss(found, batch), expected, rtol=1e-12, atol=1e-12)


def test_loss_with_a_queue_is_that_of_the_paper():
    """He et al. 2020, algorithm 1: cross-entropy of [q k+, q queue] / T with label 0."""
    method, temperature = in_double(queue=6)
    step(method, double_batch(range(20, 26), seed=1))
    batch = double_batch(range(5))
    found = method.embed(batch)
    own = (found["query_a"] * found["key_b"]).sum(dim=1, keepdim=True)
    logits = torch.cat([own, found["query_a"] @ method.queue.vectors.T], dim=1) / temperature
    expected = cross_entropy(logits, torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(method.loss(found, batch).mean(), expected, rtol=1e-12, atol=0)


def test_loss_without_a_queue_is_that_of_version_3():
    """Chen, Xie and He 2021, algorithm 1: ctr(q1, k2) + ctr(q2, k1), each 2T times the cross-entropy."""
    method, temperature = in_double(
        queue=0, in_batch_keys=True, symmetric=True, predictor=True, temperature=0.2, loss_factor=4 * 0.2
    )
    batch = double_batch(range(5))
    found = method.embed(batch)
    projection = method.branch(batch.views["view_a"].inputs.values)
    torch.testing.assert_close(found["query_a"], normalize(method.predictor(projection), dim=1))
    torch.testing.assert_close(found["key_a"], normalize(projection, dim=1))

    def contrastive(queries, keys):
        return 2 * 0.2 * cross_entropy(queries @ keys.T / temperature, torch.arange(5))

    expected = contrastive(found["query_a"], found["key_b"]) + contrastive(found["query_b"], found["key_a"])
    torch.testing.assert_close(method.loss(found, batch).mean(), expected, rtol=1e-12, atol=0)


def test_first_step_has_an_empty_queue_and_no_negative():
    method, batch = build_moco(), build_batch()
    assert torch.equal(method.loss(method.embed(batch), batch), torch.zeros(4))
    assert len(method.contrasts(method.embed(batch), batch)[0].bank.parts) == 1


def test_keys_are_pushed_after_both_directions():
    """lightly's symmetric scripts push the first view's keys before the second view asks."""
    method, batch = build_moco(symmetric=True), build_batch((10, 11, 12, 13))
    found = method.embed(batch)
    contrasts = method.contrasts(found, batch)
    assert method.queue.filled == 0 and all(len(contrast.bank.parts) == 1 for contrast in contrasts)
    step(method, batch)
    assert method.queue.ids.tolist() == [10, 11, 12, 13, 10, 11, 12, 13] + [-1] * 8
    assert torch.equal(method.queue.vectors[:8], torch.cat([found["key_b"], found["key_a"]]))
    assert build_moco(symmetric=False).embed(batch).keys() == {"query_a", "key_b"}


def test_queue_holds_the_newest_keys_over_its_wrap():
    method, pushed = build_moco(queue=10), []
    for number in range(5):
        batch = build_batch(range(4 * number, 4 * number + 4), seed=number)
        pushed += list(step(method, batch)["key_b"])
    assert sorted(method.queue.ids.tolist()) == list(range(10, 20))
    for row, item in zip(method.queue.vectors, method.queue.ids.tolist(), strict=True):
        assert torch.equal(row, pushed[item])


@pytest.mark.parametrize("symmetric", [False, True])
def test_older_copies_of_an_image_in_the_queue_are_no_negatives(symmetric):
    """The queue is longer than an epoch: it holds this very batch, as it was embedded before."""
    method, batch = build_moco(queue=100, symmetric=symmetric), build_batch((10, 11, 12, 13))
    others = build_batch((30, 31, 32, 33), seed=1)
    step(method, others)
    before = method.loss(method.embed(batch), batch)
    step(method, build_batch((10, 10, 10, 10), seed=2))
    after = method.loss(method.embed(batch), batch)
    assert torch.equal(after[0], before[0]) and (after[1:] > before[1:]).all()


def test_positives_twin_in_the_queue_is_caught_before_the_first_step():
    """What lightly's scripts do, under ids of their own: the check that runs before training names it."""

    class PushesFirst(Method):
        views, embeddings = MoCo.views, MoCo.embeddings

        def __init__(self, inner):
            super().__init__()
            self.inner, self.objective = inner, inner.objective

        @classmethod
        def build(cls, config, encoder):
            raise NotImplementedError

        def embed(self, batch):
            return self.inner.embed(batch)

        def contrasts(self, embeddings, batch):
            first = self.inner.contrasts(embeddings, batch)[0]
            self.inner.queue.push(embeddings["key_b"], 1000 + batch.views["view_b"].ids)
            return first, self.inner.contrasts(embeddings, batch)[1]

        def after_step(self, embeddings, batch, progress):
            self.inner.after_step(embeddings, batch, progress)

    batches = [build_batch(), build_batch((20, 21, 10, 11), seed=1)]
    assert check_leaks(build_moco(symmetric=True, queue=100), batches)
    with pytest.raises(InputError, match=r"part 'queue' .*leaks for 4 anchor\(s\): their own positive"):
        check_leaks(PushesFirst(build_moco(symmetric=True, queue=100)), batches)


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 10.0])
def test_loss_and_gradient_are_finite_at_any_temperature(temperature):
    method, batch = build_moco(temperature=temperature, symmetric=True), build_batch()
    step(method, build_batch((20, 21, 22, 23), seed=1))
    loss = method.loss(method.embed(batch), batch)
    loss.mean().backward()
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(p.grad).all() for p in method.branch.parameters())


def test_twin_starts_as_the_branch_and_follows_it():
    method = build_moco(momentum=0.75)
    for mine, own in zip(method.twin.parameters(), method.branch.parameters(), strict=True):
        assert torch.equal(mine, own) and not mine.requires_grad
    before = method.branch.projector.weight.detach().clone()
    with torch.no_grad():
        method.branch.projector.weight.add_(1.0)
    step(method, build_batch())
    torch.testing.assert_close(method.twin.module.projector.weight, before + 0.25)


def test_no_gradient_product_is_spent_on_keys():
    """Neither of a plain step's keys nor of those a gradient cache hands over."""
    method, batch, seen = build_moco(symmetric=True, in_batch_keys=True), build_batch(per_image=2), []
    contrasts = method.contrasts

    def remember(embeddings, batch):
        seen.extend(contrasts(embeddings, batch))
        return seen[-2:]

    method.contrasts = remember
    method.loss(method.embed(batch), batch)
    cached_step(method, batch, cast_to("fp32", torch.device("cpu")), chunk_tokens=2)
    assert len(seen) == 4 and all(contrast.anchors.requires_grad for contrast in seen)
    assert not any(part.vectors.requires_grad for contrast in seen for part in contrast.bank.parts)


def test_shuffled_keys_are_the_same_without_batch_norm():
    method, batch = build_moco(), build_batch()
    pixels = batch.views["view_b"].inputs.values
    torch.testing.assert_close(shuffled(method.twin, pixels), in_order(method.twin, pixels))


def test_shuffling_gives_keys_other_company_than_queries():
    """In split BatchNorm row i of the keys stands among other rows than row i of the queries."""
    torch.manual_seed(0)
    tower = convert_norms(ImageTower(norm=True), lambda *a, **k: SplitBatchNorm(*a, num_splits=4, **k))
    pixels = build_batch(range(16)).views["view_a"].inputs.values
    plain, mixed = tower.features(pixels), shuffled(tower.features, pixels)
    assert (plain - mixed).abs().max() > 0.1
    rows, seen = pixels.flatten(1), []

    def remember(pixels):
        seen.append(pixels)
        return pixels.flatten(1)

    assert torch.equal(shuffled(remember, pixels), rows)
    assert not torch.equal(seen[0], pixels) and torch.equal(
        seen[0].flatten().sort().values, pixels.flatten().sort().values
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"norm": "split", "split_batches": 2}, shuffled), ({"norm": "sync"}, in_order), ({}, in_order)],
)
def test_keys_are_shuffled_where_statistics_are_of_a_part_of_the_rows(settings, expected):
    assert MoCo.build(MethodConfig(name="moco", queue=8, **settings), ImageTower(norm=True))._pass is expected


@pytest.mark.parametrize("norm", ["split", "sync"])
def test_kind_of_batch_norm_where_there_is_none_is_refused(norm):
    def build(**heads):
        return MoCo.build(MethodConfig(name="moco", queue=8, norm=norm, **heads), ImageTower())

    with pytest.raises(InputError, match=rf"method\.norm: {norm} has no effect: neither the encoder nor"):
        build()
    assert build(predictor={"preset": "moco_v3_predictor"})._pass is in_order
    assert build(projector={"preset": "moco_v3"}).branch.dim == 256


def test_config_is_obeyed():
    config = MethodConfig(
        name="moco",
        queue=12,
        momentum=0.5,
        momentum_schedule="cosine",
        symmetric=True,
        in_batch_keys=True,
        negatives="private",
        loss_factor=3.0,
        views_together=True,
        projector={"dim": 5},
        predictor={"hidden": 7},
        hardness=1.0,
    )
    torch.manual_seed(0)
    method, batch = MoCo.build(config, ImageTower()), build_batch(per_image=2)
    assert method.queue.vectors.shape == (12, 5) and method.branch.dim == method.predictor.dim == 5
    assert [m.out_features for m in method.predictor.modules() if isinstance(m, torch.nn.Linear)] == [7, 5]
    assert method._embed_views is views_together
    found = method.embed(batch)
    contrasts = method.contrasts(found, batch)
    assert [[part.shared for part in contrast.bank.parts] for contrast in contrasts] == [[True, False]] * 2
    assert contrasts[0].own.tolist() == [[4, 5], [6, 7], [8, 9], [10, 11]]
    per_anchor = torch.stack([method.objective(contrast) for contrast in contrasts]).mean(dim=0)
    torch.testing.assert_close(method.loss(found, batch), 3.0 * per_anchor)
    assert method.objective.keywords["hardness"] == 1.0 and "symmetric" not in method.objective.keywords
    before = method.twin.module.projector.layers[0].weight.clone()
    with torch.no_grad():
        method.branch.projector.layers[0].weight.add_(1.0)
    step(method, batch, progress=0.5)
    torch.testing.assert_close(method.twin.module.projector.layers[0].weight, before + 0.25)
    assert float(method.temperature.scale()) == pytest.approx(5.0)


def test_a_part_of_the_views_gives_a_part_of_the_embeddings():
    method, batch = build_moco(symmetric=True), build_batch(per_image=2)
    whole = method.embed(batch)
    for kind, names in (("view_a", {"query_a", "key_a"}), ("negative", {"key_negative"})):
        found = method.embed(Batch({kind: batch.views[kind]}, batch.known))
        assert found.keys() == names
        for name in names:
            torch.testing.assert_close(found[name], whole[name])
