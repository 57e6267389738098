"""What the miner refuses before it starts: vectors without direction, relations that do not fit them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.scorers import Reranker
from retrieval_cl.mining.shingles import ShingleSets

_BLOCK = 1 << 16


def check_vectors(vectors: Float[np.ndarray, "N D"], *, name: str) -> None:
    """Raises InputError where there are no vectors, or with the first row that is zero or not finite."""
    if vectors.ndim != 2 or not len(vectors):
        raise InputError(f"{name}s of shape {vectors.shape}: at least one row of [rows, dim] is needed")
    for start in range(0, len(vectors), _BLOCK):
        block = np.asarray(vectors[start : start + _BLOCK])
        # One pass: the square sum is 0 for a zero row and not finite for a row that holds NaN or inf.
        squares = np.einsum("nd,nd->n", block, block, dtype=np.float64)
        if len(bad := np.flatnonzero(~(np.isfinite(squares) & (squares > 0)))):
            what = "is zero" if squares[bad[0]] == 0 else "holds NaN or infinity"
            raise InputError(
                f"{name} row {start + bad[0]} {what}; every row must have a direction, encode it again"
            )


def check_relations(
    query_vectors: Float[np.ndarray, "N D"],
    passage_vectors: Float[np.ndarray, "M _"],
    *,
    queries: Int64[np.ndarray, " N"],
    positives: Ragged,
    groups: Int64[np.ndarray, " M"],
) -> None:
    """Raises InputError where shapes do not fit, query rows repeat, or positives are missing or no rows."""
    num_queries, num_passages = len(query_vectors), len(passage_vectors)
    if query_vectors.shape[1] != passage_vectors.shape[1]:
        raise InputError(
            f"query vectors have {query_vectors.shape[1]} dimensions, "
            f"passage vectors {passage_vectors.shape[1]}; encode both with one model"
        )
    if len(queries) != num_queries or len(positives) != num_queries or len(groups) != num_passages:
        raise InputError(
            f"{num_queries} query vectors with {len(queries)} query rows and positives for {len(positives)}, "
            f"{num_passages} passage vectors with {len(groups)} groups; the numbers must agree"
        )
    ascending = np.sort(queries)
    if len(again := np.flatnonzero(ascending[1:] == ascending[:-1])):
        raise InputError(
            f"query row {ascending[again[0]]} stands twice; mine each query once, with all its positives"
        )
    if len(without := np.flatnonzero(positives.counts == 0)):
        raise InputError(
            f"query row {queries[without[0]]} has no positive; every mined query needs at least one"
        )
    if len(outside := np.flatnonzero((positives.values < 0) | (positives.values >= num_passages))):
        query, passage = queries[positives.rows[outside[0]]], positives.values[outside[0]]
        raise InputError(
            f"query row {query}: positive {passage} is no passage row; valid are 0 to {num_passages - 1}"
        )


def check_given(
    config: MiningConfig,
    *,
    extra: Mapping[str, Hits],
    reranker: Reranker | None,
    shingles: ShingleSets | None,
    num_passages: int,
) -> None:
    """Raises InputError where a setting lacks what it needs, or something was given that no setting uses."""
    if config.reranker is not None and reranker is None:
        raise InputError(f"mining.reranker is '{config.reranker}', but no reranker was passed to the miner")
    if config.second_model is not None and "second" not in extra:
        raise InputError(
            f"mining.second_model is '{config.second_model}', but it gave no candidates 'second'"
        )
    if config.near_text is not None and shingles is None:
        raise InputError("mining.near_text is set, but the miner was given no shingles of the passages")
    if config.near_text is None and shingles is not None:
        raise InputError("shingles were given to the miner, but mining.near_text is not set")
    if shingles is not None and len(shingles.sets) != num_passages:
        raise InputError(f"shingles of {len(shingles.sets)} texts for {num_passages} passages")
