"""Whether the loss of a perfect encoder is at its floor; and if not, which part of the bank leaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.floors import Counts, Floor, name_of
from retrieval_cl.core.losses import Objective
from retrieval_cl.core.ranks import gather_values, num_ranks
from retrieval_cl.core.temperature import Bias, Temperature
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.method import Method
from retrieval_cl.training.perfect import PerfectEncoder, Places, true_counts

TOLERANCE = 1e-4
# Beyond the tolerance: of a floor that tends to 0 with the scale, and of one that is 0.
SMALLEST, ROUNDING = 1e-30, 1e-9


@dataclass(frozen=True, eq=False)
class FloorCheck:
    """Tells whether the losses of a method are at their floor, and what leaks if not; alike on all ranks.

    Attributes:
        method: whose contrasts are checked.
        encoder: what embeds the views.
        objective: the method's, made bare.
        floor: of that objective.
    """

    method: Method
    encoder: PerfectEncoder
    objective: Objective
    floor: Floor

    def objective_reaches_floor(self) -> None:
        """Raises InputError unless one anchor with two negatives has the loss it must have."""
        axes = torch.eye(3, dtype=torch.float64, device=self.encoder.device)
        ids, one = torch.arange(3, device=axes.device), np.ones(1)
        scale = self._scale(torch.ones(1, device=axes.device))
        bank, bias = Bank((Part(axes, ids),)), self._bias(None)
        contrast = Contrast(axes[:1], ids[:1, None], bank, ids[:1], scale, bias)
        counts = Counts(
            negatives=np.array([2]),
            anchors=np.array([0]),
            cosines=one,
            reverse=np.array([0]),
            matched=np.array([[num_ranks(), 0]]),
        )
        compared = self._compare(contrast, counts)
        if compared.off_floor.any():
            raise InputError(
                f"leak check: objective '{name_of(self.objective)}' leaks: an anchor with its positive and "
                f"two orthogonal negatives has {compared.first()} at scale {float(scale):.4g}; is it applied?"
            )

    def contrast_reaches_floor(self, contrast: Contrast, batch: Batch, *, when: str) -> None:
        """Raises InputError unless every anchor of every rank has the loss it must have."""
        compared = self._compare_parts(contrast, batch, keep=[True] * len(contrast.bank.parts))
        if not compared.off_floor.any():
            return
        raise InputError(
            f"leak check: method {type(self.method).__name__}: {self._reason(contrast, batch)}. With a "
            f"perfect encoder, {when}, {compared.off_floor.sum()} of {len(compared.off_floor)} anchors"
            f"{compared.on_ranks()} are off the floor: {compared.first()} at scale "
            f"{float(self._scale(contrast.scale)):.4g}"
        )

    def _reason(self, contrast: Contrast, batch: Batch) -> str:
        said, configured = float(contrast.scale), float(self._scale(contrast.scale))
        if not math.isclose(said, configured, rel_tol=1e-5):
            return f"the temperature leaks: logits are scaled by {said:.4g}, not by {configured:.4g}"
        shift, configured = _number(contrast.bias), _number(self._bias(contrast.bias))
        if not math.isclose(shift, configured, rel_tol=1e-5):
            return f"the bias leaks: {shift:.4g} is added to the logits, not {configured:.4g}"
        # Where a target is another row, every part seems to leak.
        if rows_leak := self._rows_leak(contrast, batch):
            return rows_leak
        leaks = [self._part_leak(contrast, batch, number) for number in range(len(contrast.bank.parts))]
        return "; ".join(filter(None, leaks)) or "no part of the bank leaks alone, but all together do"

    def _part_leak(self, contrast: Contrast, batch: Batch, number: int) -> str:
        """What is wrong with one part of the bank, where no other has candidates; empty if nothing is."""
        parts, keep = contrast.bank.parts, [other == number for other in range(len(contrast.bank.parts))]
        alone = tuple(
            part if kept else replace(part, ids=torch.full_like(part.ids, -1))
            for part, kept in zip(parts, keep, strict=True)
        )
        compared = self._compare_parts(replace(contrast, bank=Bank(alone)), batch, keep=keep)
        if not compared.off_floor.any():
            return ""
        what = (
            "their own positive, a known match or padding is among their negatives"
            if (compared.found > compared.expected)[compared.off_floor].any()
            else "some of their negatives are left out"
        )
        part, number = parts[number], int(compared.off_floor.sum())
        return f"part '{part.name}' ({len(part.ids)} rows) leaks for {number} anchor(s): {what}"

    def _rows_leak(self, contrast: Contrast, batch: Batch) -> str:
        """Anchors and targets that are other rows than they should be; empty if all are right."""
        wanted, bank = self._wanted(contrast, batch), contrast.bank
        items = np.concatenate([self.encoder.items_of(part.vectors) for part in bank.parts])
        targets = contrast.targets.cpu().numpy()
        wrong = [self.encoder.items_of(contrast.anchors) != wanted, items[targets] != wanted]
        num_anchors, num_targets = self._everyones(np.stack(wrong).T).sum(axis=0).tolist()
        if num_anchors:
            return f"the anchors leak: {num_anchors} are not the rows of the batch in their order"
        if not num_targets:
            return ""
        name = bank.parts[int(np.searchsorted(bank.starts, targets[0], side="right")) - 1].name
        return (
            f"part '{name}' leaks: the target column of {num_targets} anchor(s) holds another item's row "
            "(are rows mixed where they are gathered?)"
        )

    def _compare_parts(self, contrast: Contrast, batch: Batch, *, keep: Sequence[bool]) -> Compared:
        wanted = self._wanted(contrast, batch)
        return self._compare(contrast, true_counts(contrast, batch, self.encoder, wanted=wanted, parts=keep))

    def _compare(self, contrast: Contrast, counts: Counts) -> Compared:
        scale, bias = float(self._scale(contrast.scale)), _number(self._bias(contrast.bias))
        expected = self.floor(counts, scale, bias)
        found = self.objective(contrast).double().cpu().numpy()
        return Compared(*self._everyones(np.stack([found, expected]).T).T)

    def _everyones(self, rows: Shaped[np.ndarray, "A n"]) -> Shaped[np.ndarray, "W_A n"]:
        return gather_values(torch.from_numpy(rows).to(self.encoder.device)).cpu().numpy()

    def _wanted(self, contrast: Contrast, batch: Batch) -> Places:
        positives = self.encoder.places(batch.views[self.method.views[1]].ids)
        return positives[np.arange(len(contrast.anchors)) % len(positives)]

    def _scale(self, otherwise: Float[Tensor, "1"]) -> Float[Tensor, "1"]:
        """The scale the method was configured with: what a contrast says may be wrong."""
        found = [module for module in self.method.modules() if isinstance(module, Temperature)]
        return found[0].scale() if len(found) == 1 else otherwise

    def _bias(self, otherwise: Float[Tensor, "1"] | None) -> Float[Tensor, "1"] | None:
        found = [module for module in self.method.modules() if isinstance(module, Bias)]
        return found[0].value if len(found) == 1 else otherwise


@dataclass(frozen=True, eq=False)
class Compared:
    """Losses of the anchors of all ranks, in rank order."""

    found: Float[np.ndarray, " A"]
    expected: Float[np.ndarray, " A"]

    @property
    def off_floor(self) -> Bool[np.ndarray, " A"]:
        """Which anchors have not the loss they must have."""
        room = TOLERANCE * np.abs(self.expected) + np.where(self.expected == 0, ROUNDING, SMALLEST)
        off: Bool[np.ndarray, " A"] = ~(np.abs(self.found - self.expected) <= room)
        return off

    def first(self) -> str:
        """The losses of the first anchor that is off."""
        worst = int(self.off_floor.argmax())
        return f"loss {self.found[worst]:.4g}, expected {self.expected[worst]:.4g}"

    def on_ranks(self) -> str:
        """Whose anchors are off; empty where there is one rank."""
        if num_ranks() == 1:
            return ""
        by_rank = self.off_floor.reshape(num_ranks(), -1).sum(axis=1).tolist()
        return f" (of ranks {', '.join(str(rank) for rank, number in enumerate(by_rank) if number)})"


def _number(bias: Float[Tensor, "1"] | None) -> float:
    return 0.0 if bias is None else float(bias)
