"""The live guard against false negatives: candidates that score too near the anchor's own positive."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Guard:
    """Ignores candidates that score above a limit, which follows the anchor's score with its own target.

    Exactly one of `fraction` and `margin` is set. The limit carries no gradient.

    Attributes:
        fraction: the limit is p - (1 - fraction) * |p| for a target that scores p: safe for p below 0 (0.95:
            "percpos" of NV-Retriever, de Souza et al. 2024).
        margin: the limit is p + margin, in units of the score (cosine); may be below 0.
        by_guide: scores are the inner products of the guide's vectors, not of the trained ones (GISTEmbed,
            Solatorio 2024); the contrast must carry a guide.
    """

    fraction: float | None = None
    margin: float | None = None
    by_guide: bool = False

    def __post_init__(self) -> None:
        assert (self.fraction is None) != (self.margin is None), self

    def limits(self, positives: Float[Tensor, " A"], unit: Float[Tensor, "1"]) -> Float[Tensor, " A"]:
        """The limit of each anchor, from its score with its target.

        Args:
            positives: the scores, in any unit.
            unit: what a score of 1 is in that unit.
        """
        if self.fraction is not None:
            return positives - (1.0 - self.fraction) * positives.abs()
        assert self.margin is not None
        return positives + self.margin * unit
