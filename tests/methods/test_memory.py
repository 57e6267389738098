"""Cross-batch memory: passages of past steps are negatives too."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from retrieval_cl.core.queue import Queue
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.core.views import Batch, View
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.dual_encoder import DualEncoder

TEMPERATURE = 0.2


def other_batch():
    """Three anchors; positive 11 and negatives 12, 24 and -1 are also in, or known to, `make_text_batch`."""
    views = {
        "query": View(Ragged.from_lists([[6], [7], [8]], dtype=np.int32), torch.arange(200, 203)),
        "positive": View(
            Ragged.from_lists([[1, 2], [5, 1], [9]], dtype=np.int32), torch.tensor([50, 11, 51])
        ),
        "negative": View(Ragged.from_lists([[6, 2], [10], [0]], dtype=np.int32), torch.tensor([12, 24, -1])),
    }
    return Batch(views, torch.tensor([[50], [11], [51]]))


def slow_forward(query, i, known, candidates):
    """InfoNCE of one anchor: `candidates` are (vector, id), its target comes first and counts whatever."""
    (target, _), *others = candidates
    logits = [float(query @ target) / TEMPERATURE]
    logits += [float(query @ v) / TEMPERATURE for v, item in others if item != -1 and item not in known[i]]
    return math.log(sum(map(math.exp, logits))) - logits[0]


def rows(embeddings, batch, kind):
    return list(zip(embeddings[kind].detach().double(), batch.views[kind].ids.tolist(), strict=True))


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("memory", [3, 6, 100])
def test_loss_equals_a_slow_loop_over_batch_and_memory(make_text_encoder, make_text_batch, memory, private):
    method = DualEncoder(
        make_text_encoder(), Temperature(TEMPERATURE), memory=memory, private_negatives=private
    )
    past, batch = other_batch(), make_text_batch()
    before, found = method.embed(past), method.embed(batch)
    method.after_step(before, past, 0.0)
    remembered = [*rows(before, past, "positive"), *rows(before, past, "negative")][-memory:]
    known = [set(row.tolist()) - {-1} for row in batch.known]
    positives, negatives = rows(found, batch, "positive"), rows(found, batch, "negative")
    expected = [
        slow_forward(
            query,
            i,
            known,
            [
                positives[i],
                *positives[:i],
                *positives[i + 1 :],
                *(negatives[2 * i : 2 * i + 2] if private else negatives),
                *remembered,
            ],
        )
        for i, query in enumerate(found["query"].detach().double())
    ]
    torch.testing.assert_close(
        method.loss(found, batch).double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-6
    )


def test_copies_of_its_positives_in_the_memory_are_no_negatives(make_text_encoder, make_text_batch):
    """The memory holds the batch itself: an anchor meets every candidate once more, and no positive."""
    method = DualEncoder(make_text_encoder(), Temperature(TEMPERATURE), memory=50)
    batch = make_text_batch()
    found = method.embed(batch)
    method.after_step(found, batch, 0.0)
    before = DualEncoder(make_text_encoder(), Temperature(TEMPERATURE)).loss(found, batch)
    # exp(loss) - 1 is the sum over negatives relative to the positive: it doubles.
    torch.testing.assert_close(method.loss(found, batch).exp() - 1, 2 * (before.exp() - 1))


def test_memory_gets_no_gradient_and_changes_after_the_step_alone(make_text_encoder, make_text_batch):
    method, batch = DualEncoder(make_text_encoder(), Temperature(TEMPERATURE), memory=5), make_text_batch()
    method.loss(method.embed(batch), batch).mean().backward()
    assert method.memory.filled == 0
    method.after_step(method.embed(batch), batch, 0.0)
    held = method.memory.vectors.clone()
    assert method.memory.filled == 5 and not method.memory.vectors.requires_grad
    method.loss(method.embed(batch), batch).mean().backward()
    assert torch.equal(method.memory.vectors, held)
    assert len(method.contrasts(method.embed(batch), batch)[0].bank.parts) == 3


def test_memory_holds_the_newest_positives_then_negatives(make_text_encoder, make_text_batch):
    method, batch = DualEncoder(make_text_encoder(), Temperature(TEMPERATURE), memory=14), make_text_batch()
    method.after_step(method.embed(batch), batch, 0.0)
    assert method.memory.ids.tolist() == [10, 11, 12, 11, 20, 21, 22, 11, 23, 24, 10, -1, -1, -1]
    assert method.memory.filled == 12
    plain = make_text_batch(negatives=False)
    method.after_step(method.embed(plain), plain, 0.0)
    assert method.memory.ids.tolist() == [12, 11, 12, 11, 20, 21, 22, 11, 23, 24, 10, -1, 10, 11]
    assert method.memory.pushed.tolist() == [16]


def test_memory_starts_at_its_share_of_the_steps(make_text_encoder, make_text_batch):
    batch = make_text_batch()
    method = DualEncoder(make_text_encoder(), Temperature(TEMPERATURE), memory=50, memory_start=0.25)
    for progress, filled in ((0.0, 0), (0.24, 0), (0.25, 12), (0.9, 24)):
        method.after_step(method.embed(batch), batch, progress)
        assert method.memory.filled == filled


def test_symmetric_loss_adds_the_memory_to_the_forward_direction_alone(make_text_encoder, make_text_batch):
    batch, settings = make_text_batch(), {"temperature": TEMPERATURE, "memory": 50}
    losses = {}
    for symmetric in (False, True):
        method = DualEncoder.build(MethodConfig(symmetric=symmetric, **settings), make_text_encoder())
        found = method.embed(batch)
        empty = method.loss(found, batch)
        method.after_step(found, batch, 0.0)
        losses[symmetric] = method.loss(found, batch) - empty
    assert (losses[False] > 1e-3).all()
    torch.testing.assert_close(losses[True], losses[False] / 2)


def test_config_builds_the_memory_and_without_one_there_is_no_state(make_text_encoder):
    method = DualEncoder.build(MethodConfig(memory=7, memory_start=0.5), make_text_encoder(dim=8))
    assert isinstance(method.memory, Queue) and method.memory.vectors.shape == (7, 8)
    plain = DualEncoder.build(MethodConfig(), make_text_encoder())
    assert plain.memory is None and not [name for name in plain.state_dict() if "memory" in name]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"memory": 5, "in_batch": False}, "memory: 5 has no effect with in_batch: false"),
        ({"memory_start": 0.1}, "memory_start: 0.1 has no effect with memory: 0"),
        ({"memory": -1}, "memory"),
        ({"memory": 5, "memory_start": 1.0}, "memory_start"),
    ],
)
def test_memory_without_effect_is_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        MethodConfig(**settings)
