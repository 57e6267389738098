"""What a source hands to a method each step: views of a batch, and what is known to match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from retrieval_cl.core.relations import Ragged


@dataclass(frozen=True, eq=False)
class View:
    """One batch of inputs of one kind.

    Attributes:
        inputs: what the tower of this kind embeds, one row an input (token ids for text).
        ids: item id of each row; -1 where the row is padding.
    """

    inputs: Ragged
    ids: Int64[Tensor, " B"]


@dataclass(frozen=True, eq=False)
class Batch:
    """The views of one step, by kind ("query", "positive", "negative", ...), and the anchors' known ids.

    Attributes:
        views: row i of "positive" belongs to row i of "query"; "negative" holds n rows per anchor,
            anchor-major.
        known: all item ids known to match each anchor, -1 pads.
    """

    views: Mapping[str, View]
    known: Int64[Tensor, "A P"]

    def count_rows(self, kinds: Iterable[str]) -> dict[str, int]:
        """Rows of each kind of view; 0 for one that this batch lacks."""
        return {kind: len(self.views[kind].ids) if kind in self.views else 0 for kind in kinds}
