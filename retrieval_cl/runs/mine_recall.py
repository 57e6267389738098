"""How much of what exact search finds the miner's FAISS index has found, on a sample of the queries."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from retrieval_cl.indexing.recall import Recall, Truth
from retrieval_cl.mining.candidates import Search
from retrieval_cl.mining.config import MiningConfig


def measure_search(
    search: Search,
    config: MiningConfig,
    *,
    queries: Float32[np.ndarray, "N D"],
    passages: Float32[np.ndarray, "M D"],
    seed: int,
) -> Recall | None:
    """Recall of the search at the depth that is mined, known positives included; None where it is exact.

    Args:
        search: the miner's; ranks that share it must all measure.
        config: names the index, and how deep it is searched.
        queries: vectors of those that are mined for; at most 2,000 of them are asked.
        passages: vectors of those that are searched.
        seed: of the sample.
    """
    if config.factory is None:
        return None
    depth = min(config.depth, len(passages))
    truth = Truth.find(passages, queries=queries, k=depth, seed=seed)
    return truth.compare(search(truth.queries, depth))
