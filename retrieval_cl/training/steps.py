"""One step's gradients: embed, compare, go back; in one piece, or in chunks over a cache of gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.ranks import mean_over_ranks
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.method import Embeddings, Method
from retrieval_cl.training.chunks import embed_views
from retrieval_cl.training.gradient_cache import GradientCache
from retrieval_cl.training.seeds import draw_seed

TakeStep = Callable[[Method, Batch, AbstractContextManager[object]], tuple[Tensor, Embeddings]]
"""Leaves gradients in the parameters; returns the loss over all ranks and the embeddings, detached."""


def plain_step(
    method: Method, batch: Batch, cast: AbstractContextManager[object]
) -> tuple[Float[Tensor, ""], Embeddings]:
    """The whole batch in one piece; `cast` sets the precision of embedding, the loss is taken in float32."""
    embeddings = embed_views(method, batch, cast)
    loss = method.loss(embeddings, batch).mean()
    loss.backward()
    return mean_over_ranks(loss.detach()), {kind: vectors.detach() for kind, vectors in embeddings.items()}


def cached_step(
    method: Method,
    batch: Batch,
    cast: AbstractContextManager[object],
    *,
    chunk_tokens: int,
    graph_tokens: int | None = None,
) -> tuple[Float[Tensor, ""], Embeddings]:
    """The gradients of `plain_step` in the memory of a chunk (gradient cache, Gao et al. 2021, section 3).

    All views are embedded in chunks without a graph; the loss of the whole batch is taken once and goes back
    to the vectors, and to whatever else it depends on (scale, bias); then each chunk is embedded again, with
    the same random numbers, and goes back from the cached gradients of its vectors. Exact for any size of
    chunk; with dropout it is the gradient of one plain backward over the same chunks.

    Args:
        method: what is trained.
        batch: this rank's.
        cast: the precision of embedding.
        chunk_tokens: tokens of a chunk at most, padding included.
        graph_tokens: so many tokens keep the graph of the first pass and are not embedded again; the bits
            stay the same. At any time the larger of both budgets holds a graph. None: `chunk_tokens`.

    Raises:
        InputError: the method has BatchNorm layers in training mode.
    """
    refuse_batch_norm(method)
    cache = GradientCache(
        method,
        batch,
        cast,
        chunk_tokens=chunk_tokens,
        graph_tokens=chunk_tokens if graph_tokens is None else graph_tokens,
        seed=draw_seed(),
    )
    loss = cache.compare()
    return mean_over_ranks(loss), cache.replay()


def refuse_batch_norm(method: nn.Module) -> None:
    """Raises InputError where a layer's statistics over a chunk would not be those of the batch."""
    found = [
        name for name, module in method.named_modules() if isinstance(module, _BatchNorm) and module.training
    ]
    if found:
        raise InputError(
            f"training.chunk_tokens is set, but '{found[0]}' is a BatchNorm layer in training mode "
            f"({len(found)} in all): its statistics over a chunk are not those of the batch, so gradients "
            "would be wrong; set training.chunk_tokens to null, freeze these layers in evaluation mode, or "
            "take an encoder with LayerNorm or GroupNorm"
        )


def limit_gradients(method: nn.Module, max_norm: float | None) -> Float[Tensor, ""]:
    """Scales the gradients down to a norm of at most `max_norm`; returns the norm they had. Does not wait."""
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if max_norm is not None:
        parameters = [p for p in method.parameters() if p.grad is not None]
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
