import math
from dataclasses import replace

import pytest
import torch
from slow_loops import Options, draw_contrast, is_negative

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.statistics import SAMPLE, measure

RICH = Options(negatives=True, private=True, duplicates=True, padding=True, several_known=True)


def slow_statistics(contrast, *, limit=lambda positive: math.inf):
    """Each figure by loops over all pairs."""
    vectors = torch.cat([part.vectors for part in contrast.bank.parts])
    cosines = (contrast.anchors @ vectors.T).detach()
    valid = torch.cat([part.ids >= 0 for part in contrast.bank.parts])
    shared = torch.cat([torch.full((len(p.ids),), p.shared) for p in contrast.bank.parts])
    positive, negative, entropies, chances, seen, kept = [], [], [], [], 0, 0
    for anchor, target in enumerate(contrast.targets.tolist()):
        positive.append(cosines[anchor, target])
        own = [] if contrast.own is None else contrast.own[anchor].tolist()
        mine = []
        for column in range(len(vectors)):
            if column != target and valid[column] and (shared[column] or column in own):
                seen += 1
                if is_negative(contrast, anchor, column) and cosines[anchor, column] <= limit(positive[-1]):
                    kept += 1
                    mine.append(cosines[anchor, column])
        negative += mine
        share = torch.softmax(torch.stack([positive[-1], *mine]) * contrast.scale.detach(), 0)
        entropies.append(torch.special.entr(share).sum())
        chances.append(torch.tensor(math.log(1 + len(mine)), dtype=torch.float64))
    return [
        torch.stack(positive).mean(),
        torch.stack(negative).mean(),
        1 - kept / seen,
        torch.stack(entropies).mean(),
        torch.stack(chances).mean(),
    ]


@pytest.mark.parametrize("options", [Options(), Options(bias=True), RICH], ids=str)
def test_figures_equal_slow_loops(options):
    contrast = draw_contrast(options, seed=3)
    found = measure(contrast)
    wanted = [float(value) for value in slow_statistics(contrast)]
    assert list(vars(found).values()) == pytest.approx(wanted, rel=1e-9)


def test_what_the_guard_takes_is_ignored():
    contrast = draw_contrast(RICH, seed=3)
    found = measure(contrast, guard=Guard(margin=-0.2))
    wanted = slow_statistics(contrast, limit=lambda positive: positive - 0.2)
    assert list(vars(found).values()) == pytest.approx([float(value) for value in wanted], rel=1e-9)
    assert found.ignored > measure(contrast).ignored


def test_equal_candidates_have_the_entropy_of_their_number():
    contrast = draw_contrast(Options(), seed=0)
    same = replace(contrast, anchors=torch.ones_like(contrast.anchors), scale=torch.ones(1).double())
    bank = Bank(tuple(replace(p, vectors=torch.ones_like(p.vectors)) for p in contrast.bank.parts))
    found = measure(replace(same, bank=bank))
    assert found.entropy == pytest.approx(math.log(7))
    assert found.positive_score == found.negative_score == pytest.approx(5.0)


def test_an_anchor_without_any_negative_is_no_trouble():
    bank = Bank((Part(torch.eye(2), torch.tensor([4, 4])),))
    known = torch.tensor([[4], [4]])
    found = measure(Contrast(torch.eye(2), known, bank, torch.arange(2), torch.ones(1)))
    assert (found.negative_score, found.ignored, found.entropy) == (0.0, 1.0, pytest.approx(0.0, abs=1e-6))


def test_a_sample_stands_for_many_anchors_and_no_gradient_is_left():
    random = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(4 * SAMPLE, 8, generator=random), dim=1).requires_grad_()
    ids = torch.arange(len(rows))
    scale = torch.full((1,), 5.0, requires_grad=True)
    contrast = Contrast(rows, ids[:, None], Bank((Part(rows, ids),)), ids, scale)
    found = measure(contrast)
    assert found.positive_score == pytest.approx(1.0, abs=1e-5)
    assert abs(found.negative_score) < 0.02
    assert rows.grad is None and scale.grad is None
