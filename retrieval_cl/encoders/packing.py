"""Which rows are embedded together: rows of like length, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64


def pack_rows(counts: Int64[np.ndarray, " N"], *, batch_tokens: int) -> Iterator[Int64[np.ndarray, " B"]]:
    """Yields the row numbers of each batch, longest rows first.

    A batch of B rows whose longest has L tokens holds B * L tokens once it is padded, and that is what the
    budget bounds; a row longer than the budget is a batch of its own. The same counts give the same batches.

    Args:
        counts: tokens of each row.
        batch_tokens: at most so many tokens a batch, padding included.
    """
    order = np.argsort(-counts, kind="stable")
    start = 0
    while start < len(order):
        # The longest come first, so that a batch that does not fit into memory fails at once.
        longest = max(1, int(counts[order[start]]))
        size = max(1, batch_tokens // longest)
        yield order[start : start + size]
        start += size
