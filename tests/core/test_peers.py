"""The same numbers as independent code: libraries where installed, published formulas on plain logits."""

import importlib
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from slow_loops import difference
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from retrieval_cl.core.contrast import Bank, Contrast, Guide, Part
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import info_nce, sigmoid, weigh

SCALE = 9.0


def draw(number, dim=6, *, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(number, dim, generator=random, dtype=torch.float64).requires_grad_()


def contrast_of(anchors, groups, *, known, ids, targets=None, bias=None, guide=None):
    """Cosines of any rows; `ids` of all groups one after the other."""
    parts = [Part(normalize(group, dim=1), part) for group, part in zip(groups, ids, strict=True)]
    return Contrast(
        normalize(anchors, dim=1),
        known,
        Bank(tuple(parts)),
        torch.arange(len(anchors)) if targets is None else targets,
        torch.tensor([SCALE], dtype=torch.float64),
        bias=bias,
        guide=guide,
    )


def text_batch(num_negatives, *, number=7):
    """Raw embeddings of queries, positives and mined negatives, and their contrast: all items distinct."""
    raw = [draw(number, seed=seed) for seed in range(2 + num_negatives)]
    ids = torch.arange(number * (1 + num_negatives)).split(number)
    return raw, contrast_of(raw[0], raw[1:], known=ids[0][:, None], ids=ids)


def two_views(number=6):
    """SimCLR: every view of every item is an anchor, against all views."""
    raw = [draw(number, seed=1), draw(number, seed=2)]
    rows, ids = torch.cat(raw), torch.arange(number).repeat(2)
    targets = torch.arange(2 * number).roll(number)
    return raw, contrast_of(rows, [rows], known=ids[:, None], ids=[ids], targets=targets)


def assert_same(found, wanted, raw):
    assert difference(found, wanted) < 1e-12
    pairs = zip(torch.autograd.grad(found, raw), torch.autograd.grad(wanted, raw), strict=True)
    for gradient, reference in pairs:
        assert difference(gradient, reference) < 1e-12


# sentence-transformers


def losses_of(name):
    return importlib.import_module(f"{pytest.importorskip('sentence_transformers.losses').__name__}.{name}")


@pytest.mark.parametrize("num_negatives", [0, 1, 3])
@pytest.mark.parametrize("symmetric", [False, True])
def test_multiple_negatives_ranking_loss(num_negatives, symmetric):
    peer = losses_of("multiple_negatives_ranking").MultipleNegativesRankingLoss
    both = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    raw, contrast = text_batch(num_negatives)
    wanted = peer(torch.nn.Identity(), scale=SCALE, **(both if symmetric else {}))
    wanted = wanted.compute_loss_from_embeddings(raw, labels=None)
    assert_same(info_nce(contrast, symmetric=symmetric).mean(), wanted, raw)


@pytest.mark.parametrize("num_negatives", [0, 2])
def test_the_loss_stage_of_cached_multiple_negatives_ranking_loss(num_negatives):
    module = losses_of("cached_multiple_negatives_ranking")
    raw, contrast = text_batch(num_negatives)
    model = torch.nn.Sequential(torch.nn.Identity())
    peer = module.CachedMultipleNegativesRankingLoss(model, scale=SCALE, mini_batch_size=3)
    wanted = peer.calculate_loss([list(embeddings.split(3)) for embeddings in raw])
    assert_same(info_nce(contrast).mean(), wanted, raw)


@pytest.mark.parametrize(
    ("strategy", "margin", "guard"),
    [
        ("absolute", 0.0, Guard(margin=0.0, by_guide=True)),
        ("absolute", 0.2, Guard(margin=-0.2, by_guide=True)),
        ("relative", 0.3, Guard(fraction=0.7, by_guide=True)),
    ],
)
def test_gist_embed_loss(monkeypatch, strategy, margin, guard):
    module = losses_of("gist_embed")
    raw, contrast = text_batch(1)
    guides = [draw(7, 4, seed=seed).float().detach() for seed in (10, 11, 12)]
    monkeypatch.setattr(module, "embed_columns", lambda model, features: model)
    # Its constructor asks for models with tokenizers; the loss itself only for what is set here.
    peer = SimpleNamespace(
        model=raw,
        guide=guides,
        temperature=1 / SCALE,
        margin=margin,
        margin_strategy=strategy,
        similarity_fct=torch.nn.CosineSimilarity(dim=-1),
        must_retokenize=False,
        contrast_anchors=False,
        contrast_positives=False,
        gather_across_devices=False,
        cross_entropy_loss=torch.nn.CrossEntropyLoss(),
    )
    peer.sim_matrix = lambda one, two: module.GISTEmbedLoss.sim_matrix(peer, one, two)
    wanted = module.GISTEmbedLoss.forward(peer, [], None)
    anchors, *groups = (normalize(rows, dim=1) for rows in guides)
    found = info_nce(replace(contrast, guide=Guide(anchors, tuple(groups))), guard=guard).mean()
    assert abs(float(found.detach() - info_nce(contrast).detach().mean())) > 1e-3
    assert_same(found, wanted, raw)


# pytorch-metric-learning


def nt_xent(*arguments, **keywords):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    return losses.NTXentLoss(temperature=1 / SCALE)(*arguments, **keywords)


def test_nt_xent_of_pytorch_metric_learning_over_two_views():
    raw, contrast = two_views()
    wanted = nt_xent(torch.cat(raw), torch.arange(6).repeat(2))
    assert_same(info_nce(contrast).mean(), wanted, raw)


def test_nt_xent_of_pytorch_metric_learning_with_several_positives():
    # Their mean is over pairs: an anchor weighs by the number of its positives.
    labels, others = torch.tensor([0, 0, 1, 2]), torch.tensor([2, 0, 0, 1, 0, 2, 5])
    raw = [draw(4, seed=3), draw(7, seed=4)]
    same = labels[:, None] == others
    targets = same.int().argmax(dim=1)
    contrast = contrast_of(raw[0], raw[1:], known=labels[:, None], ids=[others], targets=targets)
    found = weigh(info_nce(contrast, positives="mean"), same.sum(dim=1).double()).mean()
    wanted = nt_xent(raw[0], labels, ref_emb=raw[1], ref_labels=others)
    assert_same(found, wanted, raw)


# Formulas


def test_nt_xent_as_in_lightly():
    raw, contrast = two_views()
    rows = normalize(torch.cat(raw), dim=1)
    logits = rows @ rows.T * SCALE
    logits = logits[~torch.eye(12, dtype=torch.bool)].view(12, 11)
    labels = torch.arange(6)
    labels = torch.cat([labels + 5, labels])
    assert_same(info_nce(contrast).mean(), cross_entropy(logits, labels), raw)


@pytest.mark.parametrize("decoupled", [False, True])
def test_decoupled_contrastive_loss(decoupled):
    raw, contrast = two_views()
    one, two = (normalize(rows, dim=1) for rows in raw)

    def half(z1, z2):
        cross, within = z1 @ z2.T * SCALE, z1 @ z1.T * SCALE
        barred = torch.eye(6, dtype=torch.float64).repeat(1, 2) * -1e9
        negative = torch.logsumexp(torch.cat([within, cross], dim=1) + barred, dim=1)
        positive = cross.diagonal()
        return -positive + (negative if decoupled else torch.logaddexp(positive, negative))

    wanted = (half(one, two).mean() + half(two, one).mean()) / 2
    assert_same(info_nce(contrast, decoupled=decoupled).mean(), wanted, raw)


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("tau_plus", [0.0, 0.1, 0.5])
def test_hard_and_debiased_loss_of_robinson_and_chuang(beta, tau_plus):
    raw, contrast = two_views()
    one, two = (normalize(rows, dim=1) for rows in raw)
    temperature, number = 1 / SCALE, 2 * 6 - 2
    out = torch.cat([one, two])
    barred = torch.eye(6, dtype=torch.bool).repeat(2, 2)
    neg = (out @ out.T / temperature).exp()[~barred].view(12, number)
    pos = ((one * two).sum(dim=1) / temperature).exp().repeat(2)
    imp = (beta * neg.log()).exp()
    reweighted = (imp * neg).sum(dim=-1) / imp.mean(dim=-1)
    ng = (-tau_plus * number * pos + reweighted) / (1 - tau_plus)
    ng = torch.clamp(ng, min=number * math.exp(-1 / temperature))
    wanted = -(pos / (pos + ng)).log().mean()
    assert_same(info_nce(contrast, hardness=beta, debias=tau_plus).mean(), wanted, raw)


def test_clip():
    raw, contrast = text_batch(0)
    images, texts = (normalize(rows, dim=1) for rows in raw)
    logits, labels = SCALE * images @ texts.T, torch.arange(7)
    wanted = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    assert_same(info_nce(contrast, symmetric=True).mean(), wanted, raw)


def test_sup_con_with_the_sum_inside_the_log():
    # L_in of Khosla et al. 2020, eq. 3, takes the mean inside the log: it is larger by log |P|.
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    raw = [draw(9, seed=4), draw(9, seed=5)]
    contrast = contrast_of(raw[0], raw[1:], known=labels[:, None], ids=[labels])
    logits = SCALE * normalize(raw[0], dim=1) @ normalize(raw[1], dim=1).T
    same = labels[:, None] == labels
    shares = torch.softmax(logits, dim=1)
    wanted = -((shares * same).sum(dim=1) / same.sum(dim=1)).log().mean()
    found = info_nce(contrast, positives="sum") + same.sum(dim=1).double().log()
    assert_same(found.mean(), wanted, raw)


def test_sig_lip():
    raw, contrast = text_batch(0)
    scale, bias = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (SCALE, -3.0))
    images, texts = (normalize(rows, dim=1) for rows in raw)
    labels = 2 * torch.eye(7, dtype=torch.float64) - 1
    wanted = -logsigmoid(labels * (images @ texts.T * scale + bias)).sum() / 7
    found = sigmoid(replace(contrast, scale=scale, bias=bias)).mean()
    assert_same(found, wanted, [*raw, scale, bias])
