"""The dense search of the miner: exact, or a FAISS index whose hits are scored again by the exact rule."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32

from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing import exact
from retrieval_cl.indexing.approximate import FaissSettings, build_approximate, search_near
from retrieval_cl.indexing.exact_ranks import search_over_ranks, share_queries
from retrieval_cl.indexing.faiss_index import FaissIndex
from retrieval_cl.indexing.rescore import rescore
from retrieval_cl.mining.candidates import Search
from retrieval_cl.mining.config import MiningConfig


def build_search(
    passage_vectors: Float32[np.ndarray, "M D"],
    config: MiningConfig,
    *,
    query_vectors: Float32[np.ndarray, "Q D"],
    seed: int,
) -> Search:
    """The search that the settings name: exact, or an index as FAISS sets it or tuned to a recall.

    Args:
        passage_vectors: that are searched.
        config: names the index, its target and how deep it is searched.
        query_vectors: that will be asked; a sample of them tunes the index.
        seed: of that sample, and of the tuned index.

    Raises:
        InputError: FAISS is not installed, refuses the factory string, or does not reach the target.
    """
    if config.factory is None:
        return exact_search(passage_vectors)
    if config.target_recall is None:
        return faiss_search(passage_vectors, factory=config.factory)
    settings = FaissSettings(
        config.factory,
        config.target_recall,
        k=min(config.depth, len(passage_vectors)),
        seed=seed,
        num_gpus=None,
        section="mining",
    )
    return tuned_search(passage_vectors, settings, query_vectors=query_vectors)


def exact_search(
    passage_vectors: Float32[np.ndarray, "M D"],
    *,
    device: str = "cpu",
    memory_bytes: int = exact.DEFAULT_MEMORY,
) -> Search:
    """Exact search; device and memory are those of `indexing.exact.search`."""

    def search(query_vectors: Float32[np.ndarray, "Q D"], k: int) -> Hits:
        return exact.search(query_vectors, passage_vectors, k=k, device=device, memory_bytes=memory_bytes)

    return search


def exact_search_over_ranks(
    passage_vectors: Float32[np.ndarray, "M D"],
    *,
    device: str = "cpu",
    memory_bytes: int = exact.DEFAULT_MEMORY,
    link: torch.device,
) -> Search:
    """The same hits, each rank searching for its share of the queries; all ranks must search alike.

    Args:
        passage_vectors: all of them, on every rank.
        device: where this rank computes.
        memory_bytes: of each rank.
        link: where ranks talk to each other: the GPU under nccl.
    """

    def search(query_vectors: Float32[np.ndarray, "Q D"], k: int) -> Hits:
        return search_over_ranks(
            query_vectors, passage_vectors, k=k, device=device, memory_bytes=memory_bytes, link=link
        )

    return search


def over_ranks(search: Search, *, link: torch.device) -> Search:
    """The hits of any search whose index every rank has, each rank searching for its share of the queries.

    So all ranks hold the same hits even where two builds of an index are not the same.
    """

    def search_by_shares(query_vectors: Float32[np.ndarray, "Q D"], k: int) -> Hits:
        return share_queries(
            lambda share: search(query_vectors[share.start : share.stop], k),
            len(query_vectors),
            k=k,
            link=link,
        )

    return search_by_shares


def faiss_search(passage_vectors: Float32[np.ndarray, "M D"], *, factory: str) -> Search:
    """Search over a FAISS index built here; its hits carry the scores and the order of exact search.

    Where a GPU build of FAISS sees GPUs, they train and search.

    Raises:
        InputError: FAISS is not installed, or refuses the factory string.
    """
    index = FaissIndex.build(passage_vectors, factory=factory, num_gpus=None).on_gpus()

    def search(query_vectors: Float32[np.ndarray, "Q D"], k: int) -> Hits:
        found = index.search(query_vectors, k=k)
        return rescore(query_vectors, passage_vectors, rows=found.rows, k=k)

    return search


def tuned_search(
    passage_vectors: Float32[np.ndarray, "M D"],
    settings: FaissSettings,
    *,
    query_vectors: Float32[np.ndarray, "Q D"],
) -> Search:
    """The same over an index that is searched as widely as its target recall takes, no wider.

    Raises:
        InputError: FAISS is not installed, refuses the factory string, or does not reach the target.
    """
    built = build_approximate(passage_vectors, settings, queries=query_vectors)

    def search(query_vectors: Float32[np.ndarray, "Q D"], k: int) -> Hits:
        # One hit more than wanted, as it was tuned: the same question finds the same.
        hits = search_near(
            built.index, query_vectors, passage_vectors, k=k + 1, per_hit=built.settings.per_hit
        )
        return Hits(hits.scores[:, :k], hits.rows[:, :k])

    return search
