"""One step's gradients: embed, compare, go back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrieval_cl.core.ranks import mean_over_ranks
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.method import Embeddings, Method

TakeStep = Callable[[Method, Batch, AbstractContextManager[object]], tuple[Tensor, Embeddings]]
"""Leaves gradients in the parameters; returns the loss over all ranks and the embeddings, detached."""


def plain_step(
    method: Method, batch: Batch, cast: AbstractContextManager[object]
) -> tuple[Float[Tensor, ""], Embeddings]:
    """The whole batch in one piece; `cast` sets the precision of embedding, the loss is taken in float32."""
    with cast:
        embeddings = {kind: vectors.float() for kind, vectors in method.embed(batch).items()}
    loss = method.loss(embeddings, batch).mean()
    loss.backward()
    return mean_over_ranks(loss.detach()), {kind: vectors.detach() for kind, vectors in embeddings.items()}


def limit_gradients(method: nn.Module, max_norm: float | None) -> float:
    """Scales the gradients down to a norm of at most `max_norm`; returns the norm they had."""
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if max_norm is not None:
        parameters = [p for p in method.parameters() if p.grad is not None]
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return float(norm)
