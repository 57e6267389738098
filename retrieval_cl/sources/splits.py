"""Keeps training, tuning and testing apart: a share of the train queries as dev or test, and no leaks."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Bool, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.normalise import normalise_text, query_groups
from retrieval_cl.sources.records import Qrels, RetrievalData


def with_dev_split(data: RetrievalData, *, share: float, seed: int) -> RetrievalData:
    """Moves a seeded share of the train queries to a new dev split, so that tuning never sees test.

    Data that has a dev split, or no train split to take it from, is returned as it is.
    """
    if "dev" in data.splits or "train" not in data.splits:
        return data
    return move_queries(data, to="dev", share=share, seed=seed)


def move_queries(data: RetrievalData, *, to: str, share: float, seed: int) -> RetrievalData:
    """Moves all train judgements of a share of the train queries to the new split `to`.

    Queries with equal normalised text move together. Which ones move depends on `seed`, `to` and their texts
    alone: the order of the data does not matter.

    Args:
        data: with a split "train" and none named `to`.
        to: name of the new split.
        share: share of the distinct train queries, in (0, 1); rounded, but at least one moves and one stays.
        seed: for the draw.

    Raises:
        InputError: there are fewer than two distinct train queries.
    """
    assert "train" in data.splits and to not in data.splits and 0 < share < 1, (list(data.splits), to, share)
    train, groups = data.splits["train"], query_groups(data)
    candidates = np.unique(groups[train.judged_queries])
    if len(candidates) < 2:
        raise InputError(
            f"data set '{data.name}': {len(candidates)} distinct train query; '{to}' needs one of two or more"
        )
    texts = data.queries.full()
    keys = [_draw(normalise_text(texts[row]), to, seed) for row in candidates]
    count = min(max(1, round(share * len(candidates))), len(candidates) - 1)
    moved = candidates[np.argsort(np.array(keys, dtype=np.uint64), kind="stable")[:count]]
    chosen = np.isin(groups[train.queries], moved)
    return dataclasses.replace(
        data, splits={**data.splits, "train": _keep(train, ~chosen), to: _keep(train, chosen)}
    )


def without_leaks(data: RetrievalData) -> tuple[RetrievalData, int]:
    """Takes every train query out of train whose normalised text equals that of a query of another split.

    Returns:
        The data, and how many train queries were taken out.

    Raises:
        InputError: no train query is left.
    """
    if "train" not in data.splits:
        return data, 0
    leaks = leaked_queries(data)
    if not len(leaks):
        return data, 0
    train = data.splits["train"]
    kept = _keep(train, ~np.isin(train.queries, leaks))
    if not len(kept.judged_queries):
        raise InputError(
            f"data set '{data.name}': all {len(leaks)} train queries are dev or test queries as well"
        )
    return dataclasses.replace(data, splits={**data.splits, "train": kept}), len(leaks)


def leaked_queries(data: RetrievalData) -> Int64[np.ndarray, " L"]:
    """The train query rows whose normalised text equals that of a query of another split, ascending."""
    groups = query_groups(data)
    held_out = [qrels.queries for split, qrels in data.splits.items() if split != "train"]
    train = np.unique(data.splits["train"].queries)
    return train[np.isin(groups[train], groups[np.concatenate([*held_out, train[:0]])])]


def _draw(text: str, to: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {to} {text}".encode(), digest_size=8).digest())


def _keep(qrels: Qrels, keep: Bool[np.ndarray, " J"]) -> Qrels:
    return Qrels(qrels.queries[keep], qrels.passages[keep], qrels.grades[keep])
