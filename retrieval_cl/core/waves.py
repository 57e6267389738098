"""The slope of each logit: one wave for each reduction and direction, added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval_cl.core.identity import Pairs
from retrieval_cl.core.operands import Room
from retrieval_cl.core.reductions import Reduction


@dataclass(frozen=True, eq=False)
class Waves:
    """Sums of one direction after the first pass, and the loss's gradient with respect to them.

    Attributes:
        reductions: what was summed; the constants among them are left out.
        rows, columns: the sums over each anchor's and each column's negatives, one row a reduction.
        row_gains, column_gains: gradients of the loss with respect to them. No columns: one direction only.
    """

    reductions: tuple[Reduction, ...]
    rows: Float[Tensor, "K A"]
    columns: Float[Tensor, "K _"]
    row_gains: Float[Tensor, "K A"]
    column_gains: Float[Tensor, "K _"] | None

    @classmethod
    def build(
        cls,
        reductions: Sequence[Reduction],
        rows: tuple[Float[Tensor, "K A"], Float[Tensor, "K A"]],
        columns: tuple[Float[Tensor, "K C"], Float[Tensor, "K C"]] | None,
    ) -> Waves:
        """From (sums, gains) of rows and, in the symmetric case, of columns."""
        moving = [number for number, each in enumerate(reductions) if each.differentiable]

        def kept(values: Float[Tensor, "K N"]) -> Float[Tensor, "k N"]:
            # A tensor of places would make a GPU's host wait.
            return torch.stack([values[n] for n in moving]) if moving else values[:0]

        across, row_gains = (kept(values) for values in rows)
        down, column_gains = (across[:, :0], None) if columns is None else (kept(v) for v in columns)
        return cls(tuple(reductions[n] for n in moving), across, down, row_gains, column_gains)

    @property
    def num_waves(self) -> int:
        """Waves of a tile that has both directions."""
        return len(self.reductions) * (1 if self.column_gains is None else 2)

    def columns_of(self, span: slice) -> tuple[Tensor | None, Tensor | None]:
        """Sums and gains of some columns, one row a reduction; None, None for one direction only."""
        if self.column_gains is None:
            return None, None
        return self.columns[:, span], self.column_gains[:, span]

    def of_tile(
        self,
        logits: Float[Tensor, "r c"],
        scratch: Float[Tensor, "r c"],
        *,
        room: Room,
        rows: slice,
        columns: slice | None,
    ) -> Float[Tensor, "r c"]:
        """The slope of each logit of a tile; `columns` None: one direction alone. Overwrites `logits`."""
        waves = [
            (each, self.rows[k, rows, None], self.row_gains[k, rows, None])
            for k, each in enumerate(self.reductions)
        ]
        if columns is not None and self.column_gains is not None:
            waves += [
                (each, self.columns[k, columns], self.column_gains[k, columns])
                for k, each in enumerate(self.reductions)
            ]
        if not waves:
            return logits.zero_()
        # The last wave may overwrite the logits, so that two directions need no memory of a third tile.
        *others, (last, values, gains) = waves
        if not others:
            return last.slope(logits, values, out=logits).mul_(gains)
        total = scratch
        for number, (each, sums, slopes) in enumerate(others):
            if number == 0:
                each.slope(logits, sums, out=total).mul_(slopes)
            else:
                total.addcmul_(each.slope(logits, sums, out=room.spare_like(logits)), slopes)
        return total.addcmul_(last.slope(logits, values, out=logits), gains)

    def of_pairs(self, logits: Float[Tensor, " n"], pairs: Pairs) -> Float[Tensor, " n"]:
        """The slope of each private negative's logit."""
        total, wave = torch.zeros_like(logits), torch.empty_like(logits)
        for k, each in enumerate(self.reductions):
            each.slope(logits, self.rows[k, pairs.anchors], out=wave)
            total.addcmul_(wave, self.row_gains[k, pairs.anchors])
            if self.column_gains is not None:
                each.slope(logits, self.columns[k, pairs.columns], out=wave)
                total.addcmul_(wave, self.column_gains[k, pairs.columns])
        return total
