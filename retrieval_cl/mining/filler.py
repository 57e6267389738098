"""Random passages for queries that miss some: never one that was found, refused or known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.near import Barred, Near, near_a_positive
from retrieval_cl.mining.noise import shuffled
from retrieval_cl.mining.rules import Candidates, contains, item_keys


def draw_random(
    missing: Int64[np.ndarray, " Q"],
    queries: Int64[np.ndarray, " Q"],
    *,
    candidates: Candidates,
    positives: Ragged,
    groups: Int64[np.ndarray, " M"],
    seed: int,
    round: int,
    near: Near | None = None,
    barred: Sequence[Barred] = (),
) -> Int64[np.ndarray, "Q n"]:
    """Random passages for the queries that miss some: none known, none among the candidates, no two equal.

    Each query walks through the whole corpus in an order of its own, so the walk meets every passage once and
    ends filled or with nothing left to take.

    Args:
        missing: how many passages query i lacks.
        queries: query rows, for the noise.
        candidates: what was found for query i; kept or dropped, none of it (nor a copy) comes back here.
        positives: passage rows known to match query i.
        groups: group of each passage, from 0 to M - 1.
        seed: of the run.
        round: of mining.
        near: pairs of passages that are near duplicates; none of a positive's is drawn.
        barred: pairs of a query (its place here) and a passage that are not drawn.

    Returns:
        Passage rows in the order drawn, as many columns as the greatest of `missing`; -1 pads.
    """
    out = np.full((len(missing), int(missing.max(initial=0))), -1, dtype=np.int64)
    there = np.nonzero(candidates.rows >= 0)
    found = item_keys(there[0], candidates.rows[there], groups=groups)
    known = item_keys(positives.rows, positives.values, groups=groups)
    taken, drawn = np.sort(np.concatenate([found, known])), np.zeros(0, dtype=np.int64)
    short = np.flatnonzero(missing)
    filled = np.zeros(len(missing), dtype=np.int64)
    bits = max(1, (len(groups) - 1).bit_length())
    width, step = 4 * out.shape[1] + 16, 0
    while len(short) and step < 2**bits:
        steps = np.arange(step, min(step + width, 2**bits), dtype=np.int64)
        rows = shuffled(steps, queries[short], seed=seed, round=round, bits=bits)
        inside = rows < len(groups)
        rows = np.where(inside, rows, 0)
        keys = item_keys(short[:, None], rows, groups=groups)
        fresh = inside & ~contains(taken, keys) & ~contains(drawn, keys)
        if near is not None:
            line, column = np.nonzero(fresh)
            fresh[line, column] = ~near_a_positive(
                short[line], rows[line, column], positives=positives, near=near
            )
        for rule in barred:
            line, column = np.nonzero(fresh)
            fresh[line, column] = ~rule(short[line], rows[line, column])
        fresh &= _first_of_equals(np.where(fresh, keys, -1))
        place = filled[short, None] + np.cumsum(fresh, axis=1) - 1
        fresh &= place < missing[short, None]
        line, column = np.nonzero(fresh)
        out[short[line], place[line, column]] = rows[line, column]
        drawn = np.sort(np.concatenate([drawn, keys[line, column]]))
        filled[short] += np.count_nonzero(fresh, axis=1)
        short = short[filled[short] < missing[short]]
        step += width
    return out


def _first_of_equals(keys: Int64[np.ndarray, "Q K"]) -> Bool[np.ndarray, "Q K"]:
    order = np.argsort(keys, axis=1, kind="stable")
    ascending = np.take_along_axis(keys, order, axis=1)
    new = np.ones(keys.shape, dtype=bool)
    new[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, axis=1)
    return first
