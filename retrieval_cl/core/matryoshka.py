"""Matryoshka: any objective, on the first coordinates of the vectors too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from retrieval_cl.core.contrast import Bank, Contrast
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.losses import Objective
from retrieval_cl.core.unit_rows import unit_rows


@dataclass(frozen=True)
class Matryoshka:
    """The weighted mean of an objective over prefixes of the vectors; `matryoshka` builds and checks it.

    Attributes:
        objective: what is computed for each prefix.
        dims: lengths of the prefixes.
        weights: of each dim, with sum 1.
    """

    objective: Objective
    dims: tuple[int, ...]
    weights: tuple[float, ...]

    def __call__(self, contrast: Contrast) -> Float[Tensor, " A"]:
        """Loss per anchor. Raises InputError where the vectors are shorter than one of the dims."""
        width = contrast.anchors.shape[1]
        if max(self.dims) > width:
            raise InputError(
                f"method.matryoshka.dims has {max(self.dims)}, but the vectors have {width} coordinates; "
                f"valid dims are 1 to {width}"
            )
        pairs = zip(self.dims, self.weights, strict=True)
        first, *rest = (weight * self.objective(_shortened(contrast, dim)) for dim, weight in pairs)
        return sum(rest, start=first)


def matryoshka(
    objective: Objective, *, dims: Sequence[int], weights: Sequence[float] | None = None
) -> Matryoshka:
    """The objective for vectors that can be cut short (Kusupati et al. 2022, eq. 1).

    Each prefix is made of unit rows again (a zero prefix stays zero). At the full dim the rows are taken as
    they are, so that this term is the objective itself: give unit rows, as for any objective on cosines. All
    else of the contrast (ids, own, teacher, weights, guide) passes through. No encoder runs again, nothing is
    gathered again. A prefix costs its share of the memory of anchors and bank, twice where it has a gradient.

    Args:
        objective: computed once per dim; its loss keeps its scale, as the result is a mean.
        dims: lengths of the prefixes, positive, each once, in any order, none above D. The full dim is
            trained only where it is named.
        weights: of each dim, positive; divided by their sum (the paper adds up with weights of 1). None:
            equal.

    Raises:
        InputError: dims or weights that are not valid.
    """
    if not dims or min(dims) < 1 or len(set(dims)) < len(dims):
        raise InputError(
            f"method.matryoshka.dims is {list(dims)}; valid: one or more positive dims, each once"
        )
    weights = [1.0] * len(dims) if weights is None else weights
    if len(weights) != len(dims) or not all(0 < weight < float("inf") for weight in weights):
        raise InputError(
            f"method.matryoshka.weights is {list(weights)}; valid: {len(dims)} positive numbers, one a dim"
        )
    return Matryoshka(objective, tuple(dims), tuple(weight / sum(weights) for weight in weights))


def _shortened(contrast: Contrast, dim: int) -> Contrast:
    if dim == contrast.anchors.shape[1]:
        return contrast
    parts = tuple(replace(part, vectors=_prefix(part.vectors, dim)) for part in contrast.bank.parts)
    return replace(contrast, anchors=_prefix(contrast.anchors, dim), bank=Bank(parts))


def _prefix(rows: Float[Tensor, "N D"], dim: int) -> Float[Tensor, "N d"]:
    return unit_rows(rows[:, :dim]).to(rows.dtype)
