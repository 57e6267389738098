"""A text tower with random weights, and batches of random tokens: what the benchmarks of steps train."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.core.views import Batch, View
from retrieval_cl.methods.dual_encoder import DualEncoder
from retrieval_cl.methods.method import Method
from retrieval_cl.training.steps import TakeStep


@dataclass(frozen=True)
class Shape:
    """Of a BERT: layers, width, heads, words; and the longest query and passage of a batch, in tokens."""

    layers: int
    width: int
    heads: int
    words: int = 30_522
    query_tokens: int = 24
    passage_tokens: int = 128


MINILM = Shape(layers=6, width=384, heads=12)
BASE = Shape(layers=12, width=768, heads=12, query_tokens=32, passage_tokens=256)
TINY = Shape(layers=1, width=32, heads=2, words=100, query_tokens=6, passage_tokens=12)


class BertTower(nn.Module):
    """A BERT of random weights and without dropout, mean of its tokens, unit rows."""

    def __init__(self, shape: Shape) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        config = BertConfig(
            vocab_size=shape.words,
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=4 * shape.width,
            # At the usual 0.02 all texts have nearly one vector, and small gradients drown in rounding.
            initializer_range=0.1,
            # Without it all steps give the same gradients, and a script can compare them.
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.model = BertModel(config, add_pooling_layer=False)
        self.dim = shape.width

    def embed(self, tokens: Ragged, *, kind: Literal["query", "passage"]) -> Float[Tensor, "B D"]:
        """Unit rows in float32 or wider, with gradient; both kinds alike."""
        device = next(self.parameters()).device
        counts = torch.from_numpy(tokens.counts)
        mask = torch.arange(int(counts.max()))[None] < counts[:, None]
        padded = torch.zeros(mask.shape, dtype=torch.int64)
        padded[mask] = torch.from_numpy(tokens.values.astype(np.int64))
        # From pinned memory the host does not wait for the copy.
        mask, padded = (_to(each, device) for each in (mask, padded))
        states = self.model(input_ids=padded, attention_mask=mask.long()).last_hidden_state
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        return normalize((states * mask[..., None]).sum(dim=1), dim=1)


def build_method(shape: Shape, *, device: torch.device | str = "cpu") -> DualEncoder:
    """A dual encoder with a learned temperature; the same weights every time."""
    torch.manual_seed(0)
    return DualEncoder(BertTower(shape), Temperature(0.05, learned=True)).to(device)


def draw_batch(shape: Shape, pairs: int) -> Batch:
    """Pairs of random queries and passages, each from a quarter of its greatest length upwards."""
    random = np.random.default_rng(0)
    ids = torch.arange(pairs)
    views = {
        kind: View(_texts(random, pairs, shape.words, longest), ids)
        for kind, longest in (("query", shape.query_tokens), ("positive", shape.passage_tokens))
    }
    return Batch(views, known=ids[:, None])


def taken(
    step: TakeStep, method: Method, batch: Batch, cast: AbstractContextManager[object]
) -> Callable[[], Tensor]:
    """A step from no gradients; returns its loss."""

    def run() -> Tensor:
        method.zero_grad()
        return step(method, batch, cast)[0]

    return run


def gradients(method: nn.Module) -> dict[str, Tensor]:
    """A copy of each parameter's gradient."""
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def difference(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Greatest difference of a gradient, as a share of the greatest entry of all gradients.

    Not of each tensor's own: that of an attention's key bias is 0, and what is found there is rounding.
    """
    assert found.keys() == wanted.keys(), "gradients of different parameters"
    largest = max(float(each.abs().max()) for each in wanted.values())
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted) / largest


def _texts(random: np.random.Generator, rows: int, words: int, longest: int) -> Ragged:
    counts = random.integers(max(1, longest // 4), longest + 1, rows)
    return Ragged.from_lists([random.integers(1, words, n).tolist() for n in counts], dtype=np.int32)


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
