import pytest
import torch
from torch.nn.functional import normalize

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.losses import info_nce
from retrieval_cl.core.reverse import reverse


def make_contrast(known, ids, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    anchors, positives, negatives = (
        normalize(torch.randn(len(ids), 5, generator=generator, dtype=torch.float64), dim=1) for _ in range(3)
    )
    positives = Part(positives, torch.tensor(ids))
    others = Part(negatives, torch.arange(900, 900 + len(ids)))
    contrast = Contrast(
        anchors,
        torch.tensor(known),
        Bank((positives, others)),
        torch.arange(len(ids)),
        torch.tensor([7.0]).double(),
    )
    return contrast, positives


@pytest.mark.parametrize(
    ("known", "ids"),
    [
        ([[1], [2], [3], [4]], [1, 2, 3, 4]),
        ([[1, -1], [1, 2], [3, 1], [4, -1]], [1, 2, 3, 4]),
        ([[1, 2], [1, 2], [1, 2], [4, -1]], [1, 2, 1, 4]),
        ([[1, 2], [1, 2]], [1, 2]),
    ],
    ids=["distinct", "several known", "shared positives", "no negative left"],
)
def test_both_directions_together_are_the_symmetric_loss(known, ids):
    contrast, positives = make_contrast(known, ids)
    both = (info_nce(contrast) + info_nce(reverse(contrast, positives))) / 2
    torch.testing.assert_close(both, info_nce(contrast, symmetric=True))


def test_an_anchor_that_knows_a_positive_is_not_its_negative():
    contrast, positives = make_contrast([[1, -1], [1, 2], [3, 1], [4, -1]], [1, 2, 3, 4])
    turned = reverse(contrast, positives)
    assert torch.equal(turned.anchors, positives.vectors)
    assert turned.known.tolist() == [[0, 1, 2], [1, -1, -1], [2, -1, -1], [3, -1, -1]]
    assert turned.targets.tolist() == [0, 1, 2, 3]
