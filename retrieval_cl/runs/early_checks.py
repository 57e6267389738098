"""What mining would refuse after an hour of encoding, refused before the first text is embedded."""

from __future__ import annotations

from retrieval_cl.encoders.cross_encoder import check_reranker
from retrieval_cl.indexing.faiss_index import check_factory
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.quotas import check_quotas
from retrieval_cl.runs.further_candidates import second_encoder
from retrieval_cl.runs.prepare import require_split
from retrieval_cl.runs.text_miner import rows_to_search
from retrieval_cl.sources.records import RetrievalData


def check_mining(config: MiningConfig, data: RetrievalData, *, dim: int, in_rounds: bool = False) -> None:
    """Refuses settings of mining that name what is not there.

    A second model and a reranker are loaded and let go again: they are needed once the corpus is encoded,
    and should not lie in memory until then.

    Args:
        config: how negatives are found.
        data: what is mined for.
        dim: numbers a vector of the model that is mined with.
        in_rounds: whether there may be an older table to take from.

    Raises:
        InputError: a quota of a source without candidates, a factory that FAISS refuses, a model that cannot
            be loaded, or there is no train split.
    """
    require_split(data, "train")
    check_quotas(config.source_quotas, extra=_sources(config, data, in_rounds=in_rounds))
    _check_factory(config, num_rows=len(rows_to_search(data, config)), dim=dim)
    if config.second_model is not None:
        second_encoder(config.second_model)
    if config.reranker is not None:
        check_reranker(config.reranker)


def check_mining_of_vectors(config: MiningConfig, *, num_passages: int, dim: int) -> None:
    """The same for stored vectors, which have no further sources."""
    check_quotas(config.source_quotas, extra=())
    _check_factory(config, num_rows=num_passages, dim=dim)


def _check_factory(config: MiningConfig, *, num_rows: int, dim: int) -> None:
    if config.factory is not None:
        check_factory(
            config.factory,
            key="mining.factory",
            num_rows=num_rows,
            dim=dim,
            target_recall=config.target_recall,
        )


def _sources(config: MiningConfig, data: RetrievalData, *, in_rounds: bool) -> list[str]:
    there = {
        "lexical": True,
        "previous": in_rounds,
        "given": data.given_negatives is not None,
        "second": config.second_model is not None,
    }
    return [source for source, is_there in there.items() if is_there]
