import math
from functools import partial

import pytest
import torch
from pydantic import ValidationError

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.losses import info_nce
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.core.views import Batch, View
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.dual_encoder import DualEncoder

TEMPERATURE = 0.2
OPTIONS = {
    "in batch": {},
    "private negatives": {"private_negatives": True},
    "only own negatives": {"in_batch": False},
    "symmetric": {"objective": partial(info_nce, symmetric=True)},
}

SLOW_OPTIONS = {"symmetric": {"symmetric": True}}


def slow_loss(
    queries, positives, negatives, batch, *, in_batch=True, private_negatives=False, symmetric=False
):
    """InfoNCE by the definition, one pair at a time, in float64."""
    negatives = torch.zeros(0, 1) if negatives is None else negatives
    queries, positives, negatives = (x.detach().double() for x in (queries, positives, negatives))
    known = [set(row.tolist()) - {-1} for row in batch.known]
    positive_ids = batch.views["positive"].ids.tolist()
    negative_ids = batch.views["negative"].ids.tolist() if len(negatives) else []
    per_anchor = len(negatives) // len(queries)

    def logit(a, b):
        return float(a @ b) / TEMPERATURE

    losses = []
    for i, query in enumerate(queries):
        others = []
        for j, positive in enumerate(positives):
            if in_batch and j != i and positive_ids[j] not in known[i]:
                others.append(logit(query, positive))
        for j, negative in enumerate(negatives):
            mine = j // per_anchor == i
            sees = mine or (in_batch and not private_negatives)
            if sees and negative_ids[j] != -1 and negative_ids[j] not in known[i]:
                others.append(logit(query, negative))
        target = logit(query, positives[i])
        loss = math.log(sum(map(math.exp, [target, *others]))) - target
        if symmetric:
            back = [
                logit(queries[j], positives[i])
                for j in range(len(queries))
                if j != i and positive_ids[i] not in known[j]
            ]
            loss = (loss + math.log(sum(map(math.exp, [target, *back]))) - target) / 2
        losses.append(loss)
    return torch.tensor(losses)


@pytest.mark.parametrize(
    ("name", "has_negatives"),
    [
        *((name, True) for name in OPTIONS),
        ("in batch", False),
        ("private negatives", False),
        ("symmetric", False),
    ],
)
def test_loss_equals_a_slow_loop(make_text_encoder, make_text_batch, name, has_negatives):
    options = OPTIONS[name]
    method = DualEncoder(make_text_encoder(), Temperature(TEMPERATURE), **options)
    batch = make_text_batch(negatives=has_negatives)
    found = method.embed(batch)
    expected = slow_loss(
        found["query"], found["positive"], found.get("negative"), batch, **SLOW_OPTIONS.get(name, options)
    )
    torch.testing.assert_close(method.loss(found, batch), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_temperature_reaches_every_path(make_text_encoder, make_text_batch, options):
    batch = make_text_batch()
    method = DualEncoder(make_text_encoder(), Temperature(TEMPERATURE, learned=True), **options)
    method.loss(method.embed(batch), batch).mean().backward()
    assert method.temperature.log_scale.grad.abs() > 1e-4
    colder = DualEncoder(make_text_encoder(), Temperature(TEMPERATURE / 2), **options)
    assert not torch.allclose(
        colder.loss(colder.embed(batch), batch), method.loss(method.embed(batch), batch), rtol=1e-3
    )


@pytest.mark.parametrize("num_negatives", [0, 1, 3, 7])
def test_orthonormal_items_reach_the_closed_form_floor(make_text_encoder, num_negatives):
    method = DualEncoder(make_text_encoder(), Temperature(0.5))
    basis = torch.eye(4 + 4 * num_negatives)
    vectors = {"query": basis[:4], "positive": basis[:4], "negative": basis[4:]}
    nothing = Ragged.from_lists([])
    views = {
        "query": View(nothing, torch.arange(4)),
        "positive": View(nothing, torch.arange(4)),
        "negative": View(nothing, torch.arange(4, 4 + 4 * num_negatives)),
    }
    if num_negatives == 0:
        del vectors["negative"], views["negative"]
    loss = method.loss(vectors, Batch(views, torch.arange(4)[:, None]))
    floor = math.log1p((3 + 4 * num_negatives) * math.exp(-2.0))
    torch.testing.assert_close(loss, torch.full((4,), floor), rtol=1e-5, atol=1e-6)


def test_order_of_rows_does_not_matter(make_text_encoder, make_text_batch):
    method, batch = DualEncoder(make_text_encoder(), Temperature(TEMPERATURE)), make_text_batch()
    order = torch.tensor([2, 0, 3, 1])
    places = {"query": order, "positive": order, "negative": (order[:, None] * 2 + torch.arange(2)).flatten()}
    views = {
        kind: View(view.inputs.take(places[kind].numpy()), view.ids[places[kind]])
        for kind, view in batch.views.items()
    }
    shuffled = Batch(views, batch.known[order])
    expected = method.loss(method.embed(batch), batch)[order]
    torch.testing.assert_close(method.loss(method.embed(shuffled), shuffled), expected)


def test_only_own_negatives_without_any_is_refused(make_text_encoder, make_text_batch):
    method = DualEncoder(make_text_encoder(), Temperature(TEMPERATURE), in_batch=False)
    batch = make_text_batch(negatives=False)
    with pytest.raises(InputError, match="first_mined_round"):
        method.loss(method.embed(batch), batch)


def test_learned_temperature_stays_in_its_range(make_text_encoder, make_text_batch):
    method, batch = DualEncoder(make_text_encoder(), Temperature(0.05, learned=True)), make_text_batch()
    with torch.no_grad():
        method.temperature.log_scale.fill_(50.0)
    method.after_step({}, batch, 1.0)
    assert method.temperature.log_scale.item() == pytest.approx(math.log(100.0))


def test_config_is_obeyed(make_text_encoder, make_text_batch):
    batch = make_text_batch()
    for options, settings in {
        "private": ({"private_negatives": True}, {"negatives": "private"}),
        "alone": ({"in_batch": False}, {"in_batch": False}),
        "symmetric": (OPTIONS["symmetric"], {"symmetric": True}),
    }.values():
        plain = DualEncoder(make_text_encoder(), Temperature(TEMPERATURE), **options)
        built = DualEncoder.build(MethodConfig(temperature=TEMPERATURE, **settings), make_text_encoder())
        expected = plain.loss(plain.embed(batch), batch)
        assert torch.equal(built.loss(built.embed(batch), batch), expected)
    learned = DualEncoder.build(MethodConfig(learned_temperature=True), make_text_encoder())
    assert learned.temperature.log_scale.requires_grad


def test_bf16_loss_is_near_and_not_equal(make_text_encoder, make_text_batch):
    batch = make_text_batch()
    exact, short = (
        DualEncoder.build(MethodConfig(temperature=TEMPERATURE, loss_precision=name), make_text_encoder())
        for name in ("fp32", "bf16")
    )
    expected, found = (method.loss(method.embed(batch), batch) for method in (exact, short))
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"name": "dual"}, "no such method.*valid: .*dual_encoder"),
        ({"in_batch": False, "symmetric": True}, "symmetric: true has no effect"),
        ({"in_batch": False, "negatives": "shared"}, "negatives: shared has no effect"),
        ({"temperature": 0.001, "learned_temperature": True}, "within 0.01"),
        ({"temperature": 0}, "temperature"),
        ({"temprature": 0.1}, "temprature"),
    ],
)
def test_impossible_config_is_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        MethodConfig(**settings)
