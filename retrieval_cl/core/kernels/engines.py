"""The engines of a GPU: kernels of our own beside library products, or instead of them."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval_cl.core.engine import Demand, Engine, Gradients, Task
from retrieval_cl.core.kernels import flash
from retrieval_cl.core.kernels.sweep import MOST_EXPONENTS, Running, add_tile, tile_slopes
from retrieval_cl.core.layout import TileSize
from retrieval_cl.core.logsums import add_logs
from retrieval_cl.core.operands import Room, accumulate
from retrieval_cl.core.reductions import LogSum
from retrieval_cl.core.waves import Waves

# 32 MiB of float32 logits: they stay in an H100's second cache between the product and the sweep.
SWEEP_TILE = TileSize(rows=2048, columns=4096)
# The float32 gradient of so many vectors stands beside the one in their own dtype.
FLASH_COLUMNS = 65_536


@final
class SweepEngine(Engine):
    """Library products on large tiles, one kernel over each: log-sum-exps of any exponents, and guards."""

    @staticmethod
    def tile_size(device: torch.device, num_anchors: int) -> TileSize:
        """See `Engine`."""
        return SWEEP_TILE

    @staticmethod
    def knows(demand: Demand) -> bool:
        """Whether it can do what is asked: sums in float32, log-sum-exps alone or with constants."""
        logs = [each for each in demand.reductions if isinstance(each, LogSum)]
        others = [each for each in demand.reductions if not isinstance(each, LogSum)]
        return (
            demand.sum_dtype == torch.float32
            and 1 <= len(logs) <= MOST_EXPONENTS
            and not any(each.differentiable for each in others)
        )

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._exponents = tuple(each.exponent for each in task.reductions if isinstance(each, LogSum))

    def sum_up(self) -> tuple[Float[Tensor, "K A"], Float[Tensor, "K C"]]:
        """See `Engine`."""
        task = self.task
        room = Room.build(task.layout, task.operands, task.limits)
        rows = self._start(len(task.operands.scaled))
        columns = self._start(task.layout.num_columns if task.symmetric else 0)
        constants = [each for each in task.reductions if not isinstance(each, LogSum)]
        across = [each.start(len(task.operands.scaled), like=room.logits) for each in constants]
        down = [each.start(task.layout.num_columns, like=room.logits) for each in constants]
        for number in task.layout.shared_tiles:
            tile = task.layout.tiles[number]
            vectors = task.operands.tile_vectors(tile)
            span = slice(tile.first, tile.first + len(vectors))
            both = task.symmetric and task.layout.may_have_positives(number)
            for chunk, (low, high) in enumerate(task.layout.chunks):
                logits, scratch = room.tile_logits(number, chunk, vectors)
                add_tile(
                    logits,
                    rows.part(low, high),
                    exponents=self._exponents,
                    columns=columns.part(span.start, span.stop) if both else None,
                )
                for each in across:
                    each.add(logits, slice(low, high), scratch=scratch)
                for each in down if both else []:
                    each.add(logits.T, span, scratch=scratch.T)
        found = self._in_order(rows, [each.value() for each in across])
        if not task.symmetric:
            return found, found.new_empty(len(task.reductions), 0)
        return found, self._in_order(columns, [each.value() for each in down])

    def start_gradients(self, waves: Waves) -> None:
        """See `Engine`."""
        self._waves = waves
        self._room = Room.build(self.task.layout, self.task.operands, self.task.limits)

    def add_gradients(self, number: int, *, found: Gradients) -> None:
        """See `Engine`."""
        task, waves = self.task, self._waves
        assert found.shift is None, "a shift passes through a log-sum-exp"
        tile = task.layout.tiles[number]
        vectors = task.operands.tile_vectors(tile)
        span = slice(tile.first, tile.first + len(vectors))
        columns = waves.columns_of(span) if task.layout.may_have_positives(number) else (None, None)
        for chunk, (low, high) in enumerate(task.layout.chunks):
            logits, _ = self._room.tile_logits(number, chunk, vectors)
            factor = self._room.product_like(logits)
            tile_slopes(
                logits,
                factor,
                row_logs=waves.rows[:, low:high],
                row_slopes=waves.row_gains[:, low:high],
                exponents=self._exponents,
                column_logs=columns[0],
                column_slopes=columns[1],
            )
            if found.scaled is not None:
                accumulate(found.scaled[low:high], factor, vectors)
            if found.vectors is not None:
                accumulate(found.vectors, factor.T, task.operands.scaled[low:high])

    def _start(self, num_entries: int) -> Running:
        device = self.task.operands.scaled.device
        return Running.start(num_entries, num_exponents=len(self._exponents), device=device)

    def _in_order(self, running: Running, constants: list[Tensor]) -> Float[Tensor, "K N"]:
        logs, others = iter(running.logs(self._exponents)), iter(constants)
        return torch.stack(
            [next(logs if isinstance(each, LogSum) else others) for each in self.task.reductions]
        )


@final
class FlashEngine(Engine):
    """Logits are never written: half precision, small dims, plain log-sum-exps without guard and bias."""

    @staticmethod
    def tile_size(device: torch.device, num_anchors: int) -> TileSize:
        """See `Engine`: all anchors at once."""
        return TileSize(rows=max(1, num_anchors), columns=FLASH_COLUMNS)

    @staticmethod
    def knows(demand: Demand) -> bool:
        """Whether it can do what is asked, and should do it faster than `SweepEngine`."""
        plain = not demand.guarded and not demand.biased and demand.reductions == (LogSum(),)
        return plain and flash.suits(demand.dim, demand.dtype)

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._scaled = _in_one_piece(task.operands.scaled)

    def sum_up(self) -> tuple[Float[Tensor, "K A"], Float[Tensor, "K C"]]:
        """See `Engine`."""
        task, scaled = self.task, self._scaled
        new = scaled.new_full
        rows = new((len(scaled),), -torch.inf, dtype=torch.float32)
        columns = new((task.layout.num_columns if task.symmetric else 0,), -torch.inf, dtype=torch.float32)
        for number in task.layout.shared_tiles:
            tile = task.layout.tiles[number]
            both = task.symmetric and task.layout.may_have_positives(number)
            vectors = _in_one_piece(task.operands.tile_vectors(tile))
            across, down = flash.flash_sums(self._plan(number), scaled, vectors, symmetric=both)
            rows = add_logs(rows, across)
            if both:
                columns[tile.first : tile.first + len(vectors)] = down
        return rows[None], columns[None]

    def start_gradients(self, waves: Waves) -> None:
        """See `Engine`."""
        self._waves = waves

    def add_gradients(self, number: int, *, found: Gradients) -> None:
        """See `Engine`."""
        task, waves = self.task, self._waves
        assert found.shift is None, "a shift passes through a log-sum-exp"
        tile = task.layout.tiles[number]
        vectors = _in_one_piece(task.operands.tile_vectors(tile))
        span = slice(tile.first, tile.first + len(vectors))
        logs, slopes = waves.columns_of(span) if task.layout.may_have_positives(number) else (None, None)
        grad_scaled, grad_vectors = flash.flash_gradients(
            self._plan(number),
            self._scaled,
            vectors,
            row_logs=waves.rows[0],
            row_slopes=waves.row_gains[0],
            column_logs=None if logs is None else logs[0],
            column_slopes=None if slopes is None else slopes[0],
            needs_anchors=found.scaled is not None,
            needs_vectors=found.vectors is not None,
        )
        for total, gradient in ((found.scaled, grad_scaled), (found.vectors, grad_vectors)):
            if total is not None and gradient is not None:
                total.add_(gradient)

    def _plan(self, number: int) -> flash.Plan:
        layout, scaled = self.task.layout, self._scaled
        tile = layout.tiles[number]
        width = tile.stop - tile.start
        # All anchors are one chunk; without any there is none.
        places = layout.matches_of(number, 0) if layout.chunks else layout.padding_of(number)[:0]
        padding = torch.zeros(width, dtype=torch.bool, device=scaled.device)
        padding[layout.padding_of(number)] = True
        return flash.plan(
            places // width,
            places % width,
            padding=padding,
            num_anchors=len(scaled),
            dim=scaled.shape[1],
            dtype=scaled.dtype,
        )


def _in_one_piece(rows: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """The rows, each of whose numbers lie side by side: those of a transposed matrix are copied."""
    return rows if rows.stride(1) == 1 else rows.clone(memory_format=torch.contiguous_format)
