"""Tokenising beside computing: while one window of texts is embedded, a thread tokenises the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from retrieval_cl.core.relations import Ragged

# Rows that are sorted and packed together: enough that like lengths meet, few enough that work starts soon.
WINDOW_ROWS = 16_384


def token_windows(
    inputs: Sequence[str] | Ragged, *, tokenize: Callable[[Sequence[str]], Ragged]
) -> Iterator[tuple[int, Ragged]]:
    """Token ids of `WINDOW_ROWS` rows a time, with the number of the first; texts and tokens are cut alike.

    Args:
        inputs: texts or token ids.
        tokenize: releases the interpreter's lock while it works, as fast tokenizers do.
    """
    starts = range(0, len(inputs), WINDOW_ROWS)
    if isinstance(inputs, Ragged):
        for start in starts:
            yield start, inputs.take(np.arange(start, min(start + WINDOW_ROWS, len(inputs))))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as pool:
        ahead = pool.submit(tokenize, inputs[:WINDOW_ROWS]) if inputs else None
        for start in starts:
            assert ahead is not None
            tokens, after = ahead.result(), inputs[start + WINDOW_ROWS : start + 2 * WINDOW_ROWS]
            ahead = pool.submit(tokenize, after) if after else None
            yield start, tokens
