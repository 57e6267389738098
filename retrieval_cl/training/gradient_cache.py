"""A gradient cache: the vectors of a batch, embedded in chunks, their gradients, and the way back."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from retrieval_cl.core.views import Batch
from retrieval_cl.methods.method import Embeddings, Method
from retrieval_cl.training.chunks import Chunk, count_kept, cut_batch, embed_chunk


@final
class GradientCache:
    """The vectors of a batch, embedded chunk by chunk; then their gradients, and the way back into the tower.

    Only `compare` has collectives: ranks may cut their batches differently.
    """

    def __init__(
        self,
        method: Method,
        batch: Batch,
        cast: AbstractContextManager[object],
        *,
        chunk_tokens: int,
        graph_tokens: int,
        seed: int,
    ) -> None:
        """Embeds; `seed` is that of the chunks' random numbers, see `cached_step` for the rest."""
        self._method = method
        self._batch = batch
        self._cast = cast
        self._seed = seed
        chunks = cut_batch(batch, chunk_tokens=chunk_tokens)
        first_kept = len(chunks) - count_kept(chunks, graph_tokens=graph_tokens)
        self._again = chunks[:first_kept]
        self._kept: list[tuple[Chunk, dict[str, Tensor]]] = []
        self._vectors: dict[str, Tensor] = {}
        for chunk in self._again:
            with torch.no_grad():
                self._store(chunk, self._embed(chunk))
        for chunk in chunks[first_kept:]:
            self._kept.append((chunk, self._embed(chunk)))
            self._store(chunk, self._kept[-1][1])

    def compare(self) -> Float[Tensor, ""]:
        """The loss of this rank's anchors; leaves its gradients in the vectors, the scale and the bias."""
        for vectors in self._vectors.values():
            vectors.requires_grad_()
        loss = self._method.loss(self._vectors, self._batch).mean()
        loss.backward()
        return loss.detach()

    def replay(self) -> Embeddings:
        """Goes back through all chunks, from the last to the first, kept or not; returns the vectors."""
        while self._kept:
            self._go_back(*self._kept.pop())
        for chunk in reversed(self._again):
            self._go_back(chunk, self._embed(chunk))
        return {name: vectors.detach() for name, vectors in self._vectors.items()}

    def _embed(self, chunk: Chunk) -> dict[str, Tensor]:
        return embed_chunk(self._method, self._batch, self._cast, chunk=chunk, seed=self._seed)

    @torch.no_grad()
    def _store(self, chunk: Chunk, embeddings: dict[str, Tensor]) -> None:
        for name, vectors in embeddings.items():
            if name not in self._vectors:
                num_rows = len(self._batch.views[chunk.kind].ids)
                self._vectors[name] = vectors.new_empty((num_rows, vectors.shape[1]))
            self._vectors[name].index_copy_(0, _rows(chunk, vectors.device), vectors)

    def _go_back(self, chunk: Chunk, embeddings: dict[str, Tensor]) -> None:
        tensors, gradients = [], []
        for name, vectors in embeddings.items():
            gradient = self._vectors[name].grad
            # Not every vector needs one: a frozen tower's, or those that the loss leaves out.
            if vectors.requires_grad and gradient is not None:
                tensors.append(vectors)
                gradients.append(gradient.index_select(0, _rows(chunk, vectors.device)))
        if tensors:
            torch.autograd.backward(tensors, gradients)


def _rows(chunk: Chunk, device: torch.device) -> Int64[Tensor, " R"]:
    return torch.from_numpy(chunk.rows).to(device, non_blocking=True)
