"""Chance as a pure function of (seed, round, query row, passage row): no result depends on chunks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64, UInt64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash_noise(
    seed: int,
    round: int,
    queries: Int64[np.ndarray, "*#S"],
    passages: Int64[np.ndarray, "*#S"],
    *,
    stream: int = 0,
) -> Float64[np.ndarray, ...]:
    """Uniform numbers in (0, 1) that depend on the arguments alone: the same for any cut into chunks."""
    bits = hash_bits(seed, round, queries, passages, stream=stream)
    noise: Float64[np.ndarray, ...] = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return noise


def shuffled(
    steps: Int64[np.ndarray, " S"], queries: Int64[np.ndarray, " Q"], *, seed: int, round: int, bits: int
) -> Int64[np.ndarray, "Q S"]:
    """Where `steps` go in a permutation of the numbers below `2**bits`, one permutation for each query row.

    Rounds of multiplying by an odd number, adding, and an xor with the own upper half: each can be undone.
    """
    mask = np.uint64(2**bits - 1)
    values = np.broadcast_to(steps.astype(np.uint64), (len(queries), len(steps)))
    for stream in range(1, 5):
        key = hash_bits(seed, round, queries, np.zeros_like(queries), stream=stream)[:, None]
        values = (values * (key | np.uint64(1)) + (key >> np.uint64(32))) & mask
        values = values ^ (values >> np.uint64((bits + 1) // 2))
    return values.astype(np.int64)


def hash_bits(
    seed: int,
    round: int,
    queries: Int64[np.ndarray, "*#S"],
    passages: Int64[np.ndarray, "*#S"],
    *,
    stream: int = 0,
) -> UInt64[np.ndarray, ...]:
    """64 random bits for each (query row, passage row), by splitmix64 (Steele, Lea and Flood 2014)."""
    state = np.zeros(1, dtype=np.uint64)
    for word in (seed, round, stream):
        state = mix(state ^ np.array([word % 2**64], dtype=np.uint64))
    state = mix(state ^ np.atleast_1d(queries).astype(np.uint64))
    return mix(state ^ np.atleast_1d(passages).astype(np.uint64))


def mix(bits: UInt64[np.ndarray, "*S"]) -> UInt64[np.ndarray, "*S"]:
    """One step of splitmix64: each bit of the result depends on every bit of the argument."""
    bits = bits + _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64[np.ndarray, "*S"] = bits ^ (bits >> np.uint64(31))
    return mixed
