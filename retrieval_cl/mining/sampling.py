"""Draws negatives among the kept candidates: the best, uniformly, or weighted by score."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from retrieval_cl.mining.noise import hash_noise
from retrieval_cl.mining.rules import Candidates


def top_keys(candidates: Candidates) -> Float64[np.ndarray, "Q K"]:
    """Keys that draw the best-scored candidates."""
    return candidates.scores.astype(np.float64)


def uniform_keys(
    candidates: Candidates, queries: Int64[np.ndarray, " Q"], *, seed: int, round: int
) -> Float64[np.ndarray, "Q K"]:
    """Keys that draw every kept candidate with the same chance."""
    return hash_noise(seed, round, queries[:, None], candidates.rows)


def weighted_keys(
    candidates: Candidates, queries: Int64[np.ndarray, " Q"], *, seed: int, round: int, temperature: float
) -> Float64[np.ndarray, "Q K"]:
    """Keys that draw without replacement with weights `exp(score / temperature)`.

    The Gumbel top-k trick (Kool, van Hoof and Welling 2019, arXiv 1903.06059): the n greatest of
    `score / temperature + Gumbel noise`.
    """
    gumbel = -np.log(-np.log(hash_noise(seed, round, queries[:, None], candidates.rows)))
    keys: Float64[np.ndarray, "Q K"] = candidates.scores.astype(np.float64) / temperature + gumbel
    return keys


def draw(
    candidates: Candidates,
    keys: Float64[np.ndarray, "Q K"],
    *,
    num: int,
    first: Bool[np.ndarray, "Q K"] | None = None,
) -> Int64[np.ndarray, "Q n"]:
    """Columns of the kept candidates with the `num` greatest keys, hardest first; -1 where too few are kept.

    Equal keys and equal scores are ordered by passage row.

    Args:
        candidates: row i belongs to query i.
        keys: greater goes first.
        num: places of a query.
        first: candidates that are drawn before all others, whatever their keys.
    """
    before = () if first is None else (~first,)
    chosen = np.lexsort((candidates.rows, -keys, *before, ~candidates.kept), axis=-1)[:, :num]
    scores, rows, kept = (
        np.take_along_axis(values, chosen, axis=1)
        for values in (candidates.scores, candidates.rows, candidates.kept)
    )
    order = np.lexsort((rows, -scores, ~kept), axis=-1)
    columns = np.full((len(keys), num), -1, dtype=np.int64)
    columns[:, : chosen.shape[1]] = np.take_along_axis(np.where(kept, chosen, -1), order, axis=1)
    return columns
