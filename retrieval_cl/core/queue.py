"""A queue of past vectors with their item ids: the newest K rows, first in first out."""

from __future__ import annotations

from typing import Any, Self, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from retrieval_cl.core.contrast import Part


@final
class Queue(nn.Module):
    """Keeps the newest `size` rows that were pushed (MoCo, He et al. 2020, section 3.2).

    All of it is in the state dict, so that a checkpoint holds it and a resumed run goes on in the same bits.
    Over ranks every rank pushes the gathered rows and holds the same queue. A row of id -1 takes a place like
    any other and is nobody's candidate.

    Attributes:
        vectors: the rows; a new one takes the place of the oldest.
        ids: their item ids; -1 where no row was pushed yet. Always on the host, where ids are looked up.
        pushed: number of rows pushed since the start; on the host.
    """

    vectors: Float[Tensor, "K D"]
    ids: Int64[Tensor, " K"]
    pushed: Int64[Tensor, "1"]

    def __init__(self, size: int, dim: int, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        assert size >= 1 and dim >= 1, (size, dim)
        self.register_buffer("vectors", torch.zeros(size, dim, dtype=dtype))
        self.register_buffer("ids", torch.full((size,), -1))
        self.register_buffer("pushed", torch.zeros(1, dtype=torch.int64))
        # The same number as `pushed`, as a plain number.
        self._pushed = 0
        self.register_load_state_dict_post_hook(_read_pushed)  # type: ignore[no-untyped-call]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # Moves the vectors alone: a comparison whose ids lie on the host makes it wait for no GPU.
        ids, pushed = self.ids, self.pushed
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.ids, self.pushed = ids, pushed
        return self

    @property
    def size(self) -> int:
        """How many rows it can hold."""
        return self.ids.shape[0]

    @property
    def filled(self) -> int:
        """How many rows it holds."""
        return min(self._pushed, self.size)

    @torch.no_grad()
    def push(self, vectors: Float[Tensor, "N D"], ids: Int64[Tensor, " N"]) -> None:
        """Takes in rows, of which the last is the newest. Allocates nothing and does not wait for a GPU.

        The rows that `part` gave change with it: call this after the backward pass.
        """
        skipped = max(0, len(ids) - self.size)
        start = (self._pushed + skipped) % self.size
        turn = min(len(ids), skipped + self.size - start)
        self._put(start, vectors[skipped:turn], ids[skipped:turn])
        self._put(0, vectors[turn:], ids[turn:])
        self._pushed += len(ids)
        self.pushed.fill_(self._pushed)

    def part(self, *, name: str = "queue") -> Part:
        """The rows it holds, as views and without gradient; in the order of their places, not of age."""
        return Part(self.vectors[: self.filled], self.ids[: self.filled], name=name)

    def _put(self, start: int, vectors: Float[Tensor, "n D"], ids: Int64[Tensor, " n"]) -> None:
        stop = start + len(ids)
        self.vectors[start:stop].copy_(vectors)
        self.ids[start:stop].copy_(ids)


def _read_pushed(queue: nn.Module, incompatible_keys: Any) -> None:
    assert isinstance(queue, Queue)
    queue._pushed = int(queue.pushed)
