"""Mining once for the train queries of prepared texts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing.budget import DEFAULT_MEMORY
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.counts import MiningCounts
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.runs.prepare import PreparedText
from retrieval_cl.runs.sharing import Alone, Sharing
from retrieval_cl.runs.text_miner import TextMiner

_ALONE = Alone()


def mine_train_queries(
    text: PreparedText,
    query_vectors: Float32[np.ndarray, "N D"],
    passage_vectors: Float32[np.ndarray, "M D"],
    *,
    config: MiningConfig,
    extra: Mapping[str, Hits],
    seed: int,
    round: int,
    device: str = "cpu",
    sharing: Sharing = _ALONE,
) -> tuple[NegativeTable, MiningCounts]:
    """Mines a table; the arguments are those of `TextMiner.prepare`."""
    miner = TextMiner.prepare(
        text,
        query_vectors,
        passage_vectors,
        config=config,
        extra=extra,
        seed=seed,
        round=round,
        device=device,
        memory_bytes=DEFAULT_MEMORY,
        sharing=sharing,
    )
    return miner.mine()
