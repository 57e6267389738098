"""The central value: which anchors are compared with which candidates, and what is known to match."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Part:
    """One group of candidates: positives, mined negatives, a queue.

    Attributes:
        vectors: the candidates; unit rows where cosine is meant.
        ids: item id of each row; -1 is nobody's candidate (padding, an unfilled slot).
        shared: False means that a row is seen only by anchors that name its column in `Contrast.own`.
        name: what it is, for messages.
    """

    vectors: Float[Tensor, "C D"]
    ids: Int64[Tensor, " C"]
    shared: bool = True
    name: str = "bank"


@dataclass(frozen=True, eq=False)
class Bank:
    """The candidates an anchor is scored against. Columns run on over the parts, never concatenated."""

    parts: tuple[Part, ...]

    @property
    def num_columns(self) -> int:
        """Number of columns over all parts."""
        return sum(part.ids.shape[0] for part in self.parts)

    @property
    def starts(self) -> tuple[int, ...]:
        """First column of each part."""
        starts, column = [], 0
        for part in self.parts:
            starts.append(column)
            column += part.ids.shape[0]
        return tuple(starts)


@dataclass(frozen=True, eq=False)
class Guide:
    """A second model's vectors for anchors and each part of the bank: a guard against false negatives."""

    anchors: Float[Tensor, "A G"]
    bank: tuple[Float[Tensor, "_ G"], ...]


@dataclass(frozen=True, eq=False)
class Contrast:
    """Anchors, the bank they are scored against, and the relation between them.

    One rule replaces all masks: a candidate with id -1 is nobody's candidate; one that carries an id the
    anchor is known to match, and is not its target, is no negative.

    Attributes:
        anchors: the rows that are scored.
        known: all item ids known to match each anchor; -1 pads.
        bank: the candidates.
        targets: the column of each anchor's own positive in the bank.
        scale: 1 / temperature. Shape [1], not 0-d: sharded training refuses 0-d parameters.
        bias: added to every logit (sigmoid objective), shape [1].
        own: columns of each anchor's private candidates, -1 pads.
        teacher: scores a teacher gave to `own`.
        weights: weight of each anchor; normalised by their mean over all ranks.
        guide: a second model's vectors.
    """

    anchors: Float[Tensor, "A D"]
    known: Int64[Tensor, "A P"]
    bank: Bank
    targets: Int64[Tensor, " A"]
    scale: Float[Tensor, "1"]
    bias: Float[Tensor, "1"] | None = None
    own: Int64[Tensor, "A K"] | None = None
    teacher: Float[Tensor, "A K"] | None = None
    weights: Float[Tensor, " A"] | None = None
    guide: Guide | None = None
