"""What mining will cost, said before it begins: rows, bytes, FLOP, seconds from short probes, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.indexing.exact import DEFAULT_MEMORY, SMALLEST_MEMORY, parse_memory
from retrieval_cl.mining.config import MiningConfig

_PROBE_ROWS = 256
_TILE = (256, 8192)
_TIMES = 3
# Of the miner, a query and candidate at once: see `mining.miner.mine`.
_CANDIDATE_BYTES, _CHUNK = 100, 8192


@final
@dataclass(frozen=True)
class Plan:
    """What a run of the miner will cost.

    Attributes:
        queries: rows.
        passages: rows.
        searched: of these, rows that are searched.
        dim: numbers a row.
        vector_bytes: of all vectors.
        tokens: to encode; None where the vectors are at hand.
        encode_flop: of the encoder's matrix products and sums; None as well then.
        encode_seconds: from the probe; None as well then.
        search_flop: of exact search, one product of all queries and passages searched.
        search_seconds: from the probe's float32 rate.
        memory_bytes: of the vectors held in memory, of the search, and of the lists of candidates.
        is_exact: whether the search is exact; an index needs less, how much cannot be told.
        reranked: pairs that a reranker scores at most, beside the known ones; 0 where there is none.
    """

    queries: int
    passages: int
    searched: int
    dim: int
    vector_bytes: int
    tokens: int | None
    encode_flop: float | None
    encode_seconds: float | None
    search_flop: float
    search_seconds: float
    memory_bytes: int
    is_exact: bool
    reranked: int = 0

    def lines(self) -> list[str]:
        """What a reader sees of it."""
        work = [f"search {_flop(self.search_flop)}, about {_seconds(self.search_seconds)}"]
        if not self.is_exact:
            work[0] = f"search at most {_flop(self.search_flop)}: an index needs less, and time to build"
        if self.tokens is not None and self.encode_flop is not None and self.encode_seconds is not None:
            work.insert(
                0,
                f"encode {self.tokens:,} tokens, {_flop(self.encode_flop)}, "
                f"about {_seconds(self.encode_seconds)}",
            )
        if self.reranked:
            work.append(f"rerank up to {self.reranked:,} pairs, not timed")
        fewer = f", {self.searched:,} of them searched" if self.searched < self.passages else ""
        return [
            f"plan: {self.queries:,} queries, {self.passages:,} passages of {self.dim} numbers "
            f"({_bytes(float(self.vector_bytes))} of vectors){fewer}",
            f"plan: {'; '.join(work)} (from short probes)",
            f"plan: memory about {_bytes(float(self.memory_bytes))} beside program and texts",
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def plan_text(
    encoder: TextEncoder,
    query_tokens: Ragged,
    passage_tokens: Ragged,
    *,
    num_searched: int,
    config: MiningConfig,
    memory_bytes: int,
) -> Plan:
    """The plan for texts that are still to be encoded; encodes a few hundred passages and one tile.

    Args:
        encoder: on its device.
        query_tokens: of the queries that are mined for.
        passage_tokens: of the corpus.
        num_searched: passages of it that are searched, see `mining.candidates`.
        config: how deep, and by which search.
        memory_bytes: what the search may take.
    """
    tokens = len(query_tokens.values) + len(passage_tokens.values)
    # Where some are searched, their vectors stand beside those of the corpus.
    copied = num_searched if num_searched < len(passage_tokens) else 0
    size = 4 * (len(query_tokens) + len(passage_tokens) + copied) * encoder.dim
    return _plan(
        len(query_tokens),
        len(passage_tokens),
        num_searched=num_searched,
        dim=encoder.dim,
        tokens=tokens,
        encode_flop=tokens * _flop_per_token(encoder),
        encode_seconds=tokens * _seconds_per_token(encoder, passage_tokens),
        held_bytes=size,
        config=config,
        memory_bytes=memory_bytes,
        device=encoder.device,
    )


def plan_vectors(
    query_vectors: Float32[np.ndarray, "N D"],
    passage_vectors: Float32[np.ndarray, "M D"],
    *,
    config: MiningConfig,
    memory_bytes: int,
) -> Plan:
    """The plan for vectors that are at hand, memory-mapped; multiplies one tile. Arguments as `plan_text`."""
    return _plan(
        len(query_vectors),
        len(passage_vectors),
        num_searched=len(passage_vectors),
        dim=query_vectors.shape[1],
        tokens=None,
        encode_flop=None,
        encode_seconds=None,
        held_bytes=0,
        config=config,
        memory_bytes=memory_bytes,
        device=torch.device("cpu"),
    )


def search_memory(memory: str | None, config: MiningConfig) -> int:
    """Bytes that exact search may take, from words such as 2GiB; None is the default.

    Raises:
        InputError: it is no size or too small, or the search is not exact.
    """
    if memory is None:
        return DEFAULT_MEMORY
    if config.factory is not None:
        raise InputError(
            f"--memory {memory} bounds exact search and has no effect: mining.factory is '{config.factory}'"
        )
    size = parse_memory(memory)
    if size < SMALLEST_MEMORY:
        raise InputError(f"--memory {memory}: exact search needs at least {SMALLEST_MEMORY >> 20} MiB")
    return size


def _plan(
    queries: int,
    passages: int,
    *,
    num_searched: int,
    dim: int,
    tokens: int | None,
    encode_flop: float | None,
    encode_seconds: float | None,
    held_bytes: int,
    config: MiningConfig,
    memory_bytes: int,
    device: torch.device,
) -> Plan:
    flop = 2.0 * queries * num_searched * dim
    lists = _CANDIDATE_BYTES * min(queries, _CHUNK) * min(config.depth, num_searched)
    # An index holds the vectors once more; exact search keeps to its budget.
    search = memory_bytes if config.factory is None else 4 * num_searched * dim
    return Plan(
        queries=queries,
        passages=passages,
        searched=num_searched,
        dim=dim,
        vector_bytes=4 * (queries + passages) * dim,
        tokens=tokens,
        encode_flop=encode_flop,
        encode_seconds=encode_seconds,
        search_flop=flop,
        search_seconds=flop / _flop_per_second(dim, device),
        memory_bytes=held_bytes + min(search, 16 * num_searched * dim + 2**26) + lists,
        is_exact=config.factory is None,
        reranked=0 if config.reranker is None else queries * _candidates(config, num_searched),
    )


def _candidates(config: MiningConfig, num_searched: int) -> int:
    """Of a query at most, of the lists that are made for it."""
    further = ("lexical" in config.quotas) + (config.second_model is not None)
    dense = config.depth if config.widest is None else config.widest
    return min(dense, num_searched) + further * min(config.depth, num_searched)


def _flop_per_token(encoder: TextEncoder) -> float:
    """Two for each weight that multiplies, and one sum over the vector; attention's own are left out."""
    tables = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    looked_up = {
        id(weight)
        for module in encoder.modules()
        if isinstance(module, tables)
        for weight in module.parameters()
    }
    weights = {id(weight): weight.numel() for weight in encoder.parameters()}
    return 2.0 * sum(size for key, size in weights.items() if key not in looked_up) + encoder.dim


def _seconds_per_token(encoder: TextEncoder, tokens: Ragged) -> float:
    rows = np.unique(np.linspace(0, len(tokens) - 1, min(_PROBE_ROWS, len(tokens))).astype(np.int64))
    probe = tokens.take(rows)
    # What is called first pays for what is loaded and compiled late.
    encoder.encode(tokens.take(rows[:8]), kind="passage")
    started = perf_counter()
    encoder.encode(probe, kind="passage")
    return (perf_counter() - started) / max(1, len(probe.values))


def _flop_per_second(dim: int, device: torch.device) -> float:
    left, right = (torch.ones((rows, dim), device=device) for rows in _TILE)
    seconds = []
    for _ in range(_TIMES):
        started = perf_counter()
        # The copy of one number waits for the device.
        float((left @ right.T)[0, 0])
        seconds.append(perf_counter() - started)
    return 2.0 * _TILE[0] * _TILE[1] * dim / min(seconds)


def _bytes(number: float) -> str:
    return _scaled(number, ("bytes", "KiB", "MiB", "GiB", "TiB"), base=1024)


def _flop(number: float) -> str:
    return _scaled(number, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"), base=1000)


def _scaled(number: float, units: Sequence[str], *, base: int) -> str:
    place = 0
    while number >= base and place < len(units) - 1:
        number, place = number / base, place + 1
    return f"{number:.0f} {units[place]}" if not place or number >= 9.95 else f"{number:.1f} {units[place]}"


def _seconds(number: float) -> str:
    if number < 60:
        return f"{number:.2g} s" if number < 9.95 else f"{number:.0f} s"
    return f"{number / 60:.0f} min" if number < 5400 else f"{number / 3600:.1f} h"
