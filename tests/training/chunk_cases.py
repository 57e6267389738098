"""Tiny methods and ragged batches for steps in chunks, in functions that a spawned rank can call too."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.core.views import Batch, View
from retrieval_cl.methods.dual_encoder import DualEncoder
from retrieval_cl.training.device import cast_to

WORDS = 40
CAST = cast_to("fp32", torch.device("cpu"))


class Tower(nn.Module):
    """Mean of word vectors, dropout, a layer for each kind, unit rows, in the type of its weights.

    Attributes:
        fail: called at each pass with its name ("without graph", "with graph", "backward") and padded tokens.
        masks: what dropout left of each pass with the number of rows.
    """

    def __init__(self, *, dropout=0.0, dim=6):
        super().__init__()
        self.words = nn.EmbeddingBag(WORDS, dim, mode="mean")
        self.layers = nn.ModuleDict({kind: nn.Linear(dim, dim) for kind in ("query", "passage")})
        self.dropout = nn.Dropout(dropout)
        self.dim = dim
        self.fail = lambda stage, tokens: None
        self.masks = []

    def embed(self, tokens, *, kind):
        size = len(tokens) * max(1, int(tokens.counts.max(initial=0)))
        self.fail("with graph" if torch.is_grad_enabled() else "without graph", size)
        values = torch.from_numpy(tokens.values.astype(np.int64))
        bags = self.words(values, torch.from_numpy(tokens.offsets[:-1]))
        hidden = self.dropout(bags)
        self.masks.append((hidden != 0).detach())
        vectors = normalize(self.layers[kind](hidden), dim=1)
        if vectors.requires_grad:
            vectors.register_hook(lambda gradient: self.fail("backward", size))
        return vectors


def build_method(*, dropout=0.0, dim=6, dtype=torch.float64, weighted=False, **options):
    """A dual encoder with a learned temperature; `weighted` weighs an anchor by the id of its query."""
    torch.manual_seed(0)
    method = DualEncoder(Tower(dropout=dropout, dim=dim), Temperature(0.2, learned=True), **options).to(dtype)
    if weighted:
        contrasts = method.contrasts

        def with_weights(embeddings, batch):
            weights = 1.0 + batch.views["query"].ids % 3
            return tuple(
                replace(contrast, weights=weights.to(dtype)) for contrast in contrasts(embeddings, batch)
            )

        method.contrasts = with_weights
    return method


def build_batch(*, num_anchors=8, num_negatives=2, seed=0, shortest=0, longest=9):
    """Ragged rows, some without a token; anchors share positives, one negative is another's positive."""
    generator = np.random.default_rng(seed)

    def view(ids):
        lengths = generator.integers(shortest, longest + 1, len(ids))
        lengths[0] = longest
        rows = [generator.integers(0, WORDS, n).tolist() for n in lengths]
        return View(Ragged.from_lists(rows, dtype=np.int32), torch.from_numpy(ids))

    positives = generator.integers(100, 100 + num_anchors, num_anchors)
    views = {"query": view(np.arange(num_anchors)), "positive": view(positives)}
    if num_negatives:
        negatives = generator.integers(100, 130, num_anchors * num_negatives)
        negatives[0], negatives[-1] = positives[-1], -1
        views["negative"] = view(negatives)
    return Batch(views, torch.from_numpy(positives)[:, None])


def slice_batch(batch, *, rank, world):
    """The anchors of one rank, with all that is theirs."""

    def part(values):
        share = len(values) // world
        return np.arange(rank * share, (rank + 1) * share)

    views = {
        kind: View(view.inputs.take(part(view.ids)), view.ids[part(view.ids)])
        for kind, view in batch.views.items()
    }
    return Batch(views, batch.known[part(batch.known)])


def gradients(step, method, batch, *, seed=0):
    """Loss and the gradient of each parameter of one step."""
    method.zero_grad()
    torch.manual_seed(seed)
    loss, embeddings = step(method, batch, CAST)
    assert not any(vectors.requires_grad for vectors in embeddings.values())
    return loss, {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def assert_near(found, expected, *, limit=1e-12):
    """The greatest difference in each tensor, relative to its greatest entry."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        greatest = tensor.abs().max()
        assert greatest > 0, name
        assert (found[name] - tensor).abs().max() <= limit * greatest, name


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
