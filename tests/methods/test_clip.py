import math
from functools import partial

import image_text_methods
import pytest
import torch
from image_text_methods import BOTH_WAYS, BUILDERS, STEPS, build_batch, build_clip, build_towers, slice_batch
from slow_clip import SlowClip
from torch.nn.functional import cross_entropy, logsigmoid

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.losses import sigmoid
from retrieval_cl.core.views import Batch, View
from retrieval_cl.methods import parts
from retrieval_cl.methods.clip import Clip
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.training.leaks import check_leaks


def gradients_of(loss, method):
    method.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in method.named_parameters()}


def assert_near(found, expected):
    """Within 1e-12 of the greatest entry of each."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.abs().max() > 0, name
        assert (found[name] - value).abs().max() <= 1e-12 * value.abs().max(), name


def unlike(batch):
    """The batch as if no text had a twin and nothing else were known to match."""
    ids = torch.arange(len(batch.known))
    views = {"image": batch.views["image"], "text": View(batch.views["text"].inputs, ids)}
    return Batch(views, ids[:, None])


def test_loss_and_gradients_equal_open_clips():
    """open_clip's ClipLoss: logits = scale * images @ texts.T, the mean of both cross-entropies."""
    method, batch = build_clip().double(), unlike(build_batch(8, dtype=torch.float64))
    loss = method.loss(method.embed(batch), batch).mean()
    images, texts = (method.embed(batch)[kind] for kind in ("image", "text"))
    logits, labels = method.temperature.log_scale.exp() * images @ texts.T, torch.arange(8)
    expected = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    assert abs(loss - expected) <= 1e-12 * expected
    assert_near(gradients_of(loss, method), gradients_of(expected, method))


def test_mined_and_edited_texts_are_further_columns_of_the_images_alone():
    """As in NegCLIP: [images x texts] grows by columns; each text still chooses among the images."""
    method, batch = build_clip().double(), build_batch(4, mined=2, edits=1, dtype=torch.float64)
    ids = {
        "image": torch.arange(4),
        "text": torch.arange(4),
        "negative": torch.arange(10, 18),
        "edit": torch.arange(20, 24),
    }
    views = {kind: View(view.inputs, ids[kind]) for kind, view in batch.views.items()}
    batch = Batch(views, torch.arange(4)[:, None])
    loss = method.loss(method.embed(batch), batch).mean()
    found, scale, labels = method.embed(batch), method.temperature.log_scale.exp(), torch.arange(4)
    square = scale * found["image"] @ found["text"].T
    mined = scale * found["image"] @ found["negative"].T
    edited = scale * (found["image"] * found["edit"]).sum(dim=1, keepdim=True)
    wide = torch.cat([square, mined, edited], dim=1)
    expected = (cross_entropy(wide, labels) + cross_entropy(square.T, labels)) / 2
    assert_near(gradients_of(loss, method), gradients_of(expected, method))


def test_sigmoid_equals_siglips_equation():
    """Eq. 1: -1/|B| of the sum over all pairs of log sigmoid(z * (t * x @ y + b)), z = 1 on the diagonal."""
    method = build_clip(objective=sigmoid, bias=-3.0).double()
    batch = unlike(build_batch(8, dtype=torch.float64))
    loss = method.loss(method.embed(batch), batch).mean()
    images, texts = (method.embed(batch)[kind] for kind in ("image", "text"))
    logits = method.temperature.log_scale.exp() * images @ texts.T + method.bias.value
    expected = -logsigmoid((2 * torch.eye(8) - 1) * logits).sum() / 8
    assert abs(loss - expected) <= 1e-12 * expected
    assert_near(gradients_of(loss, method), gradients_of(expected, method))


@pytest.mark.parametrize(
    ("objective", "positives"),
    [
        *(("info_nce", positives) for positives in ("target", "mean", "sum")),
        *(("sigmoid", positives) for positives in ("target", "sum")),
    ],
)
@pytest.mark.parametrize("private", [False, True])
def test_several_texts_an_image_equal_a_slow_loop(objective, positives, private):
    """Texts that other images have too are left out, or are further positives, in both directions."""
    config = MethodConfig(
        name="clip",
        temperature=0.2,
        objective=objective,
        positives=positives,
        negatives="private" if private else "shared",
    )
    method = Clip.build(config, build_towers()).double()
    batch = build_batch(6, mined=2, edits=2, dtype=torch.float64)
    ids = batch.views["text"].ids
    assert len(ids.unique()) < 6 and torch.isin(batch.views["negative"].ids, batch.known).any()
    loss = method.loss(method.embed(batch), batch)
    scale = method.temperature.log_scale.exp()
    bias = 0.0 if method.bias is None else method.bias.value[0]
    slow = SlowClip(method.embed(batch), batch, scale=scale[0], bias=bias, private=private)
    expected = slow.sigmoid(positives) if objective == "sigmoid" else slow.info_nce(positives)
    assert_near({"loss": loss.detach()}, {"loss": expected.detach()})
    assert_near(gradients_of(loss.mean(), method), gradients_of(expected.mean(), method))


def test_edited_texts_of_an_image_are_nobody_elses_candidates():
    method, batch = build_clip(), build_batch(4, edits=2)
    embeddings = method.embed(batch)
    before = method.loss(embeddings, batch)
    embeddings["edit"] = embeddings["edit"].clone()
    embeddings["edit"][4:6] *= -1
    changed = method.loss(embeddings, batch) != before
    assert changed.tolist() == [False, False, True, False]


def test_mined_texts_are_candidates_of_all_images_or_of_their_own():
    batch = build_batch(4, mined=2)
    ids = torch.arange(500, 508)
    batch = Batch(batch.views | {"negative": View(batch.views["negative"].inputs, ids)}, batch.known)
    for private, expected in ((False, [True] * 4), (True, [False, False, True, False])):
        method = build_clip(private_negatives=private)
        embeddings = method.embed(batch)
        before = method.loss(embeddings, batch)
        embeddings["negative"] = embeddings["negative"].clone()
        embeddings["negative"][4:6] *= -1
        assert (method.loss(embeddings, batch) != before).tolist() == expected


@pytest.mark.parametrize("name", BUILDERS)
def test_cached_step_gives_the_gradients_of_the_plain_one(name):
    batch, found = build_batch(8, mined=2, edits=2, dtype=torch.float64), {}
    for kind, step in STEPS.items():
        method = BUILDERS[name]().double()
        loss, _ = step(method, batch, torch.autocast("cpu", enabled=False))
        found[kind] = {"loss": loss} | {key: p.grad for key, p in method.named_parameters()}
    assert "temperature.log_scale" in found["plain"]
    assert_near(found["cached"], found["plain"])


def test_locked_towers_get_no_gradient_and_the_others_the_same():
    batch, found = build_batch(8, mined=2, edits=2, dtype=torch.float64), []
    for step in STEPS.values():
        for locked in (False, True):
            method = build_clip().double()
            method.encoder.image.requires_grad_(not locked)
            step(method, batch, torch.autocast("cpu", enabled=False))
            found.append({key: p.grad for key, p in method.named_parameters() if p.grad is not None})
    free, *others = found
    assert {key for key in free if key not in others[0]} == {"encoder.image.weight", "encoder.image.bias"}
    for other in others:
        assert_near(other, {key: free[key] for key in other})


def test_order_of_pairs_does_not_matter():
    method, batch = build_clip(), build_batch(4)
    order = torch.tensor([2, 0, 3, 1])
    views = {
        kind: View(view.inputs.take(order.numpy()), view.ids[order]) for kind, view in batch.views.items()
    }
    shuffled = Batch(views, batch.known[order])
    expected = method.loss(method.embed(batch), batch)[order]
    torch.testing.assert_close(method.loss(method.embed(shuffled), shuffled), expected)


@pytest.mark.parametrize("name", BUILDERS)
def test_perfect_towers_reach_the_floor_and_a_twin_under_another_id_is_named(name, monkeypatch):
    batches = [build_batch(8, seed=seed, mined=2, edits=2) for seed in range(2)]
    assert check_leaks(BUILDERS[name](), batches)

    def with_twin(kind, embeddings, batch, *, shared):
        part = parts.candidates(embeddings[kind], batch.views[kind].ids, name=f"{kind}s", shared=shared)
        if kind == "negative":
            # The first mined text matches its image: it is the image's own text, under an id of nobody.
            part.vectors[0], part.ids[0] = embeddings["text"][0], 9999
        return part

    batches[0].views["negative"].ids[0] = batches[0].views["text"].ids[0]
    monkeypatch.setattr("retrieval_cl.methods.clip.view_part", with_twin)
    with pytest.raises(InputError, match=r"part 'negatives' \(16 rows\) leaks.*their own positive"):
        check_leaks(BUILDERS[name](), batches)


def test_gather_that_mixes_texts_is_named(monkeypatch):
    monkeypatch.setattr(parts, "gather_rows", lambda rows: rows.roll(1, 0))
    with pytest.raises(InputError, match="part 'texts' leaks"):
        check_leaks(build_clip(), [unlike(build_batch(8))])


def test_scale_stays_between_1_and_100():
    method = Clip.build(MethodConfig(name="clip"), build_towers())
    for value, expected in ((50.0, 100.0), (-9.0, 1.0)):
        with torch.no_grad():
            method.temperature.log_scale.fill_(value)
        method.after_step({}, build_batch(), 1.0)
        assert float(method.temperature.scale().detach()) == pytest.approx(expected)


CLIP_STARTS, SIGLIP_STARTS = (
    {"start_temperature": 0.01},
    {"start_temperature": 1 / 117.3, "start_bias": -12.9},
)


@pytest.mark.parametrize(
    ("starts", "settings", "temperature", "bias"),
    [
        ({}, {}, 0.07, None),
        ({}, {"objective": "sigmoid"}, 0.1, -10.0),
        (CLIP_STARTS, {}, 0.01, None),
        (CLIP_STARTS, {"temperature": 0.05}, 0.05, None),
        (CLIP_STARTS, {"objective": "sigmoid"}, 0.1, -10.0),
        (SIGLIP_STARTS, {"objective": "sigmoid"}, 1 / 117.3, -12.9),
        (SIGLIP_STARTS, {"objective": "sigmoid", "bias": -4.0}, 1 / 117.3, -4.0),
        (SIGLIP_STARTS, {"objective": "sigmoid", "temperature": 0.02}, 0.02, -12.9),
        (SIGLIP_STARTS, {}, 1 / 117.3, None),
        (SIGLIP_STARTS, {"learned_temperature": False}, 1 / 117.3, None),
    ],
)
def test_what_a_pretrained_model_learned_is_where_it_starts_unless_set(starts, settings, temperature, bias):
    method = Clip.build(MethodConfig(name="clip", **settings), build_towers(**starts))
    assert float(method.temperature.scale().detach()) == pytest.approx(1 / temperature)
    assert method.temperature.log_scale.requires_grad == settings.get("learned_temperature", True)
    assert (method.bias and float(method.bias.value.detach())) == (bias and pytest.approx(bias))
    method.after_step({}, build_batch(), 1.0)
    assert float(method.temperature.scale().detach()) == pytest.approx(1 / temperature)


def test_settings_are_obeyed():
    batch = build_batch(6, mined=2, edits=2)
    for settings, options in (
        ({"positives": "sum"}, {"objective": partial(BOTH_WAYS, positives="sum")}),
        (
            {"guard": {"margin": 0.3}, "hardness": 0.5, "debias": 0.05, "decoupled": True},
            {"objective": partial(BOTH_WAYS, **image_text_methods.HARD)},
        ),
        ({"negatives": "private"}, {"private_negatives": True}),
        ({"objective": "sigmoid", "bias": -3.0}, {"objective": sigmoid, "bias": -3.0}),
    ):
        built = Clip.build(MethodConfig(name="clip", temperature=0.2, **settings), build_towers())
        plain = build_clip(**options)
        expected = plain.loss(plain.embed(batch), batch)
        assert torch.equal(built.loss(built.embed(batch), batch), expected)
        assert not torch.equal(expected, build_clip().loss(plain.embed(batch), batch))
        assert built.guard == built.objective.keywords["guard"]


def test_bf16_loss_is_near_the_exact_one_and_not_equal():
    batch = build_batch(6, mined=2)
    exact, short = (
        Clip.build(MethodConfig(name="clip", temperature=0.2, loss_precision=name), build_towers())
        for name in ("fp32", "bf16")
    )
    expected, found = (method.loss(method.embed(batch), batch) for method in (exact, short))
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_one_pair_has_nothing_to_choose_from():
    method, batch = build_clip(), slice_batch(build_batch(2), rank=0, world=2)
    assert method.loss(method.embed(batch), batch).tolist() == [0.0]
    judged = build_clip(objective=sigmoid, bias=-3.0)
    found = judged.embed(batch)
    expected = math.log1p(math.exp(3.0 - 5 * (found["image"] * found["text"]).sum().item()))
    assert judged.loss(found, batch).tolist() == [pytest.approx(expected, rel=1e-5)]
