"""A cached step that finds the size of chunk that fits into memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.ranks import mean_over_ranks, min_over_ranks, num_ranks, rank
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.method import Embeddings, Method
from retrieval_cl.training.chunks import longest_row, whole_tokens
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.gradient_cache import GradientCache
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.run import Callback, Run
from retrieval_cl.training.seeds import draw_seed
from retrieval_cl.training.steps import TakeStep, cached_step, plain_step, refuse_batch_norm

T = TypeVar("T")

WHOLE = 2**62
# The CPU allocator and cuBLAS have no exception of their own for it.
_MARKS = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def choose_step(config: TrainingConfig, log: MetricsLog) -> tuple[TakeStep, list[Callback]]:
    """The step that `training.chunk_tokens` asks for, and the callbacks it needs (before `Save`)."""
    if config.chunk_tokens is None:
        return plain_step, []
    if isinstance(config.chunk_tokens, int):
        return partial(cached_step, chunk_tokens=config.chunk_tokens, graph_tokens=config.graph_tokens), []
    step = FittedStep(log)
    return step, [step]


@final
class FittedStep(Callback):
    """`cached_step` with the largest chunks that fit: the whole batch, halved as long as memory is short.

    A step that ran out of memory is taken again as a whole, with the same random numbers; nothing of the
    first try is kept. So its gradients are, bit for bit, those of a step that had the smaller size from the
    start. The size stays for the steps that follow and is part of a checkpoint; each change is a line of
    metrics. As many graphs are kept as one chunk's budget holds: a batch that fits is embedded once. With
    dropout the size decides which random numbers a row meets, so a smaller machine trains to other bits.

    Ranks embed on their own and all take the step at the smallest size that one of them needs. They agree on
    it after the way back, in one small all-reduce. What cannot be mended is a rank that runs out of memory in
    the loss itself, where the others wait for it, or on a single row: it raises, and the launcher ends the
    others.

    Attributes:
        chunk_tokens: tokens of a chunk at most, padding included; `WHOLE` until memory was short.
    """

    def __init__(self, log: MetricsLog) -> None:
        self.chunk_tokens = WHOLE
        self._told = WHOLE
        self._log = log

    def __call__(
        self, method: Method, batch: Batch, cast: AbstractContextManager[object]
    ) -> tuple[Float[Tensor, ""], Embeddings]:
        """One step. Parameters must have no gradients yet: a second try drops all there are.

        Raises:
            InputError: the method has BatchNorm layers in training mode; or memory is too short for a single
                row, or for the loss.
        """
        refuse_batch_norm(method)
        assert all(parameter.grad is None for parameter in method.parameters()), "gradients of another step"
        seed = draw_seed()
        while (found := self._try(method, batch, cast, seed=seed)) is None:
            method.zero_grad()
        loss, embeddings = found
        return mean_over_ranks(loss), embeddings

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """Writes a line where the size has changed."""
        if self.chunk_tokens != self._told:
            self._log.append(run.step, chunk_tokens=self.chunk_tokens)
            self._told = self.chunk_tokens

    def state(self) -> dict[str, Any]:
        """The size: a run that is taken up again cuts the same chunks."""
        return {"chunk_tokens": self.chunk_tokens}

    def load_state(self, state: dict[str, Any], run: Run) -> None:
        """See `state`."""
        self.chunk_tokens = self._told = state["chunk_tokens"]

    def _try(
        self, method: Method, batch: Batch, cast: AbstractContextManager[object], *, seed: int
    ) -> tuple[Tensor, Embeddings] | None:
        """Loss and embeddings; None where the step must be taken again at the size that is now set."""
        cache = self._embed(method, batch, cast, seed=seed)
        used = self.chunk_tokens
        loss = unless_out_of_memory(cache.compare)
        if loss is None and num_ranks() > 1:
            raise InputError(
                f"rank {rank()} ran out of memory in the loss, where the other ranks wait for it; set "
                f"training.chunk_tokens to a number below {min(used, whole_tokens(batch))}, or lower "
                "training.batch_size"
            )
        embeddings = None if loss is None else unless_out_of_memory(cache.replay)
        if embeddings is None:
            self._shrink(batch)
        device = next(method.parameters()).device
        self.chunk_tokens, least = min_over_ranks([self.chunk_tokens, -used], device=device)
        if loss is None or embeddings is None or self.chunk_tokens != -least:
            return None
        return loss, embeddings

    def _embed(
        self, method: Method, batch: Batch, cast: AbstractContextManager[object], *, seed: int
    ) -> GradientCache:
        # The other ranks wait in the loss: this one tries until it can join them.
        while True:
            size = self.chunk_tokens
            cache = unless_out_of_memory(
                partial(GradientCache, method, batch, cast, chunk_tokens=size, graph_tokens=size, seed=seed)
            )
            if cache is not None:
                return cache
            self._shrink(batch)

    def _shrink(self, batch: Batch) -> None:
        longest = longest_row(batch)
        if self.chunk_tokens <= longest:
            raise InputError(
                f"out of memory with training.chunk_tokens at {self.chunk_tokens}, where a chunk is no more "
                f"than the longest row ({longest} tokens); lower encoder.max_tokens, or training.batch_size "
                "if it is the loss that is too large"
            )
        self.chunk_tokens = min(self.chunk_tokens, whole_tokens(batch)) // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator said that memory is short: that of a GPU, of the CPU, or of cuBLAS."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(mark in str(error) for mark in _MARKS)
    )


def unless_out_of_memory(function: Callable[[], T]) -> T | None:
    """What the function gives; None where memory was too short for it, after giving back what it held."""
    try:
        return function()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Only here, with the error gone, are its frames gone too and the tensors they held.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
