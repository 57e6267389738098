"""The plain engine: torch, tile by tile, on any device."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval_cl.core.engine import Engine, Gradients
from retrieval_cl.core.layout import TileSize
from retrieval_cl.core.operands import Room, accumulate
from retrieval_cl.core.reductions import Accumulator
from retrieval_cl.core.waves import Waves

CPU_TILE = TileSize(rows=1024, columns=1024)
GPU_TILE = TileSize(rows=4096, columns=4096)


@final
class TileEngine(Engine):
    """Column tiles outside, chunks of anchors inside: a tile of logits lives between two products."""

    @staticmethod
    def tile_size(device: torch.device, num_anchors: int) -> TileSize:
        """See `Engine`."""
        return GPU_TILE if device.type == "cuda" else CPU_TILE

    def sum_up(self) -> tuple[Float[Tensor, "K A"], Float[Tensor, "K C"]]:
        """See `Engine`."""
        task = self.task
        room = Room.build(task.layout, task.operands, task.limits)
        rows = [each.start(len(task.operands.scaled), like=room.logits) for each in task.reductions]
        num_columns = task.layout.num_columns if task.symmetric else 0
        columns = [each.start(num_columns, like=room.logits).value() for each in task.reductions]
        for number in task.layout.shared_tiles:
            tile = task.layout.tiles[number]
            vectors = task.operands.tile_vectors(tile)
            down = self._columns_of(number, like=room.logits)
            for chunk, (low, high) in enumerate(task.layout.chunks):
                logits, scratch = room.tile_logits(number, chunk, vectors)
                for column in down:
                    column.add(logits.T, slice(0, len(vectors)), scratch=scratch.T)
                for row in rows[:-1]:
                    row.add(logits, slice(low, high), scratch=scratch)
                rows[-1].add(logits, slice(low, high), scratch=logits)
            for total, column in zip(columns[: len(down)], down, strict=True):
                total[tile.first : tile.first + len(vectors)] = column.value()
        return torch.stack([row.value() for row in rows]), torch.stack(columns)

    def start_gradients(self, waves: Waves) -> None:
        """See `Engine`."""
        self._waves = waves
        task = self.task
        self._room = Room.build(task.layout, task.operands, task.limits, spare=waves.num_waves > 2)

    def add_gradients(self, number: int, *, found: Gradients) -> None:
        """See `Engine`."""
        task, tile = self.task, self.task.layout.tiles[number]
        vectors = task.operands.tile_vectors(tile)
        both = task.layout.may_have_positives(number)
        columns = slice(tile.first, tile.first + len(vectors)) if both else None
        for chunk, (low, high) in enumerate(task.layout.chunks):
            logits, scratch = self._room.tile_logits(number, chunk, vectors)
            slope = self._waves.of_tile(
                logits, scratch, room=self._room, rows=slice(low, high), columns=columns
            )
            if found.shift is not None:
                found.shift.add_(slope.sum())
            factor = self._room.factor(slope)
            if found.scaled is not None:
                accumulate(found.scaled[low:high], factor, vectors)
            if found.vectors is not None:
                accumulate(found.vectors, factor.T, task.operands.scaled[low:high])

    def _columns_of(self, number: int, *, like: Tensor) -> list[Accumulator]:
        if not self.task.symmetric or not self.task.layout.may_have_positives(number):
            return []
        tile = self.task.layout.tiles[number]
        return [each.start(tile.stop - tile.start, like=like) for each in self.task.reductions]
