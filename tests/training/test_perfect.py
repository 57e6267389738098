import numpy as np
import pytest
import torch
from tiny_run import DropoutTower

from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.core.views import Batch, View
from retrieval_cl.methods.dual_encoder import DualEncoder
from retrieval_cl.training.perfect import NOTHING, PerfectEncoder, first_anchors, true_counts

VIEWS, EMBEDDINGS = DualEncoder.views, DualEncoder.embeddings
CPU = torch.device("cpu")


def random_batch(seed, *, num_anchors=5, per_anchor=2):
    """Few items, so that copies abound; each anchor knows its positive and up to two others."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape, low=0):
        return torch.randint(low, 9, shape, generator=random) * 10

    positive, negative = draw(num_anchors), draw(num_anchors * per_anchor, low=-2).clamp_min(-1)
    more = torch.where(draw(num_anchors, 2) < 40, -1, draw(num_anchors, 2))
    ids = {"query": torch.arange(num_anchors), "positive": positive, "negative": negative}
    views = {kind: View(Ragged.from_lists([]), one) for kind, one in ids.items()}
    return Batch(views, torch.cat([more, positive[:, None]], dim=1))


def encoder_of(*batches):
    return PerfectEncoder.of(batches, views=VIEWS, device=CPU)


def test_vectors_are_orthonormal_and_equal_for_one_item():
    batch = random_batch(0)
    found = encoder_of(batch).embed(batch, views=VIEWS, embeddings=EMBEDDINGS)
    rows = torch.cat([found["positive"], found["negative"]])
    ids = torch.cat([batch.views["positive"].ids, batch.views["negative"].ids])
    items = ids >= 0
    assert torch.equal((rows @ rows.T)[items][:, items], (ids[:, None] == ids).double()[items][:, items])
    assert torch.equal(found["query"], found["positive"])


def test_padding_leans_to_its_anchors_positive_and_is_no_item():
    batch = Batch(
        {
            kind: View(Ragged.from_lists([]), torch.tensor(ids))
            for kind, ids in {"query": [0, 1], "positive": [5, 6], "negative": [7, -1, -1, 8]}.items()
        },
        torch.tensor([[5], [6]]),
    )
    encoder = encoder_of(batch)
    found = encoder.embed(batch, views=VIEWS, embeddings=EMBEDDINGS)
    cosines = found["query"] @ found["negative"].T
    torch.testing.assert_close(cosines, torch.tensor([[0, 0.8, 0, 0], [0, 0, 0.8, 0]]).double())
    torch.testing.assert_close(found["negative"].norm(dim=1), torch.ones(4).double())
    assert encoder.items_of(found["negative"]).tolist() == [2, NOTHING, NOTHING, 3]
    assert encoder.items_of(torch.zeros(1, encoder.dim).double()).tolist() == [NOTHING]
    assert encoder.places(torch.tensor([-1, 5, 6, 7, 8, 9])).tolist() == [NOTHING, 0, 1, 2, 3, NOTHING]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("options", [{}, {"memory": 12}, {"private_negatives": True, "memory": 40}])
def test_counts_equal_a_slow_loop(seed, options):
    batch, past = random_batch(seed), random_batch(seed + 100)
    encoder = encoder_of(batch, past)
    memory = options.get("memory", 0)
    method = DualEncoder(DropoutTower(dropout=0.0, dim=encoder.dim), Temperature(0.1), **options)
    for one in (past, batch):
        method.after_step(
            {kind: v.float() for kind, v in encoder.embed(one, views=VIEWS, embeddings=EMBEDDINGS).items()},
            one,
            0.0,
        )
    (contrast,) = method.contrasts(encoder.embed(batch, views=VIEWS, embeddings=EMBEDDINGS), batch)
    wanted = encoder.places(batch.views["positive"].ids)
    counts = true_counts(contrast, batch, encoder, wanted=wanted, parts=[True] * len(contrast.bank.parts))

    held = torch.cat([one.views[kind].ids for one in (past, batch) for kind in ("positive", "negative")])
    remembered = held[-memory:].tolist() if memory else []
    positives, negatives = (batch.views[kind].ids.tolist() for kind in ("positive", "negative"))
    is_negative, matches = [], []
    for i, known in enumerate(batch.known.tolist()):
        mine = [not options.get("private_negatives") or j // 2 == i for j in range(len(negatives))]
        seen = [(item, True) for item in positives] + list(zip(negatives, mine, strict=True))
        # A queue is a ring: the order of its rows is not that of age, so only numbers are compared.
        seen += [(item, True) for item in sorted(remembered)]
        is_negative.append([s and item >= 0 and item not in known for item, s in seen])
        matches.append([s and item >= 0 and item in known for item, s in seen])
        is_negative[i][i], matches[i][i] = False, False
    assert counts.negatives.tolist() == np.sum(is_negative, axis=1).tolist()
    assert counts.reverse[:5].tolist() == np.sum(is_negative, axis=0)[:5].tolist()
    assert np.bincount(counts.anchors).tolist() == (1 + np.sum(matches, axis=1)).tolist()
    for i, target in enumerate(positives):
        others = [j for j in range(5) if j != i and matches[j][i]]
        same = [j for j in others if positives[j] == target]
        assert counts.matched[i].tolist() == [1 + len(same), len(others) - len(same)]


def test_first_anchors_keep_their_rows_of_each_view():
    batch = random_batch(1)
    cut = first_anchors(batch, 3)
    assert torch.equal(cut.views["negative"].ids, batch.views["negative"].ids[:6])
    assert torch.equal(cut.views["positive"].ids, batch.views["positive"].ids[:3])
    assert torch.equal(cut.known, batch.known[:3])
    assert len(first_anchors(batch, 99).known) == 5
