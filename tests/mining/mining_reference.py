"""Slow references: what the miner must equal, written as loops over Python's own numbers."""

import math

import numpy as np

from retrieval_cl.core.hits import Hits
from retrieval_cl.mining.rules import Candidates
from retrieval_cl.mining.scorers import vector_scorer
from retrieval_cl.mining.table import SOURCES

MASK = 2**64 - 1


def slow_mix(bits):
    """splitmix64 by Python's own integers."""
    bits = (bits + 0x9E3779B97F4A7C15) & MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


def slow_noise(seed, round, query, passage, stream=0):
    bits = 0
    for word in (seed, round, stream, query, passage):
        bits = slow_mix(bits ^ (int(word) & MASK))
    return ((bits >> 11) + 0.5) * 2.0**-53


def candidates_of(rows, scores, kept=None):
    rows = np.asarray(rows, dtype=np.int64)
    there = rows >= 0
    return Candidates(
        rows=rows,
        scores=np.asarray(scores, dtype=np.float32),
        ranks=np.broadcast_to(np.arange(rows.shape[1], dtype=np.int32), rows.shape),
        sources=np.zeros(rows.shape, dtype=np.int8),
        kept=there if kept is None else there & np.asarray(kept),
    )


def random_candidates(rng, *, num_queries=4, num_columns=7, num_passages=20):
    rows = np.stack([rng.permutation(num_passages)[:num_columns] for _ in range(num_queries)])
    rows[rng.random(rows.shape) < 0.15] = -1
    scores = rng.integers(-2, 3, size=rows.shape) / 2
    return candidates_of(rows, scores, rng.random(rows.shape) < 0.7)


def brute_search(passage_vectors):
    """Scores every pair by the rule of the exact search's final scores, and sorts."""

    def search(query_vectors, k):
        grid = np.indices((len(query_vectors), len(passage_vectors))).reshape(2, -1)
        scores = vector_scorer(query_vectors, passage_vectors)(*grid).reshape(len(query_vectors), -1)
        rows = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
        order = np.lexsort((rows, -scores), axis=-1)[:, :k]
        return Hits(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))

    return search


def slow_mine(dense, judge, *, queries, positives, groups, config, seed, round, extra=()):
    """The whole miner but random filler, query by query.

    Args:
        dense: [N][M] scores by which the search ranks.
        judge: [N][M] scores for thresholds and sampling.
        extra: pairs (source name, [N] lists of passage rows).

    Returns:
        Per query a list of (row, score, rank, source code), and the candidates removed per rule.
    """
    removed, drawn = {}, []
    for number, query in enumerate(queries):
        ranking = sorted(range(len(groups)), key=lambda row: (-dense[number][row], row))[: config.depth]
        found = [(row, rank, SOURCES.index("dense")) for rank, row in enumerate(ranking)]
        for name, lists in extra:
            found += [(row, rank, SOURCES.index(name)) for rank, row in enumerate(lists[number]) if row >= 0]
        left = slow_refuse(found, judge[number], positives[number], groups, config, removed)
        key = slow_key(config, judge[number], query, seed, round)
        best = sorted(left, key=lambda one: (-key(one[0]), one[0]))[: config.num_negatives]
        hardest_first = sorted(best, key=lambda one: (-judge[number][one[0]], one[0]))
        drawn.append([(row, judge[number][row], rank, source) for row, rank, source in hardest_first])
    return drawn, removed


def slow_refuse(found, judge, positives, groups, config, removed):
    """The candidates (row, rank, source) of one query that pass every rule."""
    representative = {}
    for place, (row, rank, _) in enumerate(found):
        representative[groups[row]] = min(representative.get(groups[row], (rank, place)), (rank, place))
    choose = {"weakest": min, "strongest": max}[config.positive]
    positive = choose(float(judge[row]) for row in positives)
    known = {groups[row] for row in positives}
    rank_max = config.depth if config.rank_max is None else config.rank_max
    rules = [
        ("known", lambda place, row, rank: groups[row] not in known),
        ("duplicate", lambda place, row, rank: representative[groups[row]] == (rank, place)),
        ("rank_window", lambda place, row, rank: config.rank_min <= rank < rank_max),
        ("max_score", lambda place, row, rank: judge[row] <= config.max_score),
        ("min_score", lambda place, row, rank: judge[row] >= config.min_score),
        ("margin", lambda place, row, rank: judge[row] <= positive - config.margin),
        (
            "relative_margin",
            lambda place, row, rank: judge[row] <= positive - config.relative_margin * abs(positive),
        ),
    ]
    left = list(enumerate(found))
    for name, passes in rules:
        if getattr(config, name, 0) is None:
            continue
        kept = [(place, one) for place, one in left if passes(place, one[0], one[1])]
        removed[name] = removed.get(name, 0) + len(left) - len(kept)
        left = kept
    return [one for _, one in left]


def slow_key(config, judge, query, seed, round):
    """What is drawn by, for a passage row: greater goes first."""
    if config.sampling == "top":
        return lambda row: judge[row]
    if config.sampling == "uniform":
        return lambda row: slow_noise(seed, round, query, row)
    return lambda row: (
        float(judge[row]) / config.temperature - math.log(-math.log(slow_noise(seed, round, query, row)))
    )
