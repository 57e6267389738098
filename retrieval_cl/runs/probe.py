"""The probe set: train queries that are searched again and again, to see how far the weights have moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.runs.prepare import PreparedText
from retrieval_cl.runs.sharing import Sharing
from retrieval_cl.runs.text_miner import searched_rows
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.run import Run

# Stream of random numbers that must not coincide with others of the seed.
_PROBE = 7


@final
@dataclass(frozen=True, eq=False)
class Probe:
    """Fixed queries among fixed passages.

    Attributes:
        queries: query rows, of train.
        passages: passage rows that are searched, ascending.
        known: passage rows known to match each of the queries; they are no candidates, found or not.
        k: hits a query.
    """

    queries: Int64[np.ndarray, " P"]
    passages: Int64[np.ndarray, " S"]
    known: Ragged
    k: int

    @classmethod
    def of(cls, text: PreparedText, *, mining: MiningConfig, training: TrainingConfig) -> Probe:
        """Draws queries and passages with the seed.

        Among a share of the passages the hits are cut at the same share of the ranks that are drawn from, so
        that the probe looks as deep as mining does.

        Raises:
            InputError: `min_overlap` is set, and the probe would find everything always.
        """
        generator = np.random.default_rng([training.seed, _PROBE])
        queries = _draw(text.data.splits["train"].judged_queries, training.probe_queries, generator)
        mined = searched_rows(text, mining)
        size = len(mined) if training.probe_passages is None else training.probe_passages
        passages = _draw(mined, size, generator)
        k = max(1, round(mining.last_rank * len(passages) / len(mined)))
        if k >= len(passages) and training.min_overlap is not None:
            raise InputError(
                f"training.min_overlap has no effect: a look finds all of its {len(passages)} passages, "
                "whatever the weights; lower mining.depth or mining.rank_max"
            )
        return cls(queries, passages, text.known_passages().take(queries), min(k, len(passages)))

    def find(self, make_vectors: Callable[[], Vectors], run: Run) -> Int64[np.ndarray, "P k"]:
        """`search` where the run computes; `Remine` calls it."""
        vectors = make_vectors()
        with vectors.sharing.together():
            return self.search(vectors, device=run.device)

    def search(self, vectors: Vectors, *, device: torch.device | str) -> Int64[np.ndarray, "P k"]:
        """Passage rows of each query's best hits under the weights of the moment; -1 for a known one."""
        return self.search_among(
            vectors.queries(self.queries),
            vectors.some_passages(self.passages),
            device=device,
            sharing=vectors.sharing,
        )

    def search_among(
        self,
        query_vectors: Float32[np.ndarray, "P D"],
        passage_vectors: Float32[np.ndarray, "S D"],
        *,
        device: torch.device | str,
        sharing: Sharing,
    ) -> Int64[np.ndarray, "P k"]:
        """The same with vectors of `queries` and `passages`; `sharing` says who searches."""
        found = sharing.exact(passage_vectors, device=str(device))(query_vectors, self.k)
        rows = self.passages[found.rows]
        width = int(self.passages[-1]) + 1
        lines = np.arange(len(rows), dtype=np.int64)[:, None] * width
        known = np.isin(lines + rows, self.known.rows * width + self.known.values)
        hits: Int64[np.ndarray, "P k"] = np.where(known, -1, rows)
        return hits


def _draw(
    rows: Int64[np.ndarray, " N"], size: int, generator: np.random.Generator
) -> Int64[np.ndarray, " n"]:
    """At most `size` of the rows, ascending."""
    return np.sort(generator.choice(rows, size=min(size, len(rows)), replace=False))
