"""What mining settings need beside the model's vectors: BM25 lists, a second model's, reranker, shingles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.encoders.cross_encoder import TextReranker, load_reranker
from retrieval_cl.encoders.load import load_encoder
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.encoders.words import split_words
from retrieval_cl.indexing.bm25 import Lexical
from retrieval_cl.indexing.budget import DEFAULT_MEMORY
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.searchers import exact_search
from retrieval_cl.mining.shingles import ShingleSets
from retrieval_cl.runs.models import find_model
from retrieval_cl.runs.prepare import PreparedText
from retrieval_cl.runs.systems import DEFAULT_B, DEFAULT_K1
from retrieval_cl.sources.word_ids import word_ids


def further_hits(
    text: PreparedText,
    rows: Int64[np.ndarray, " S"],
    *,
    config: MiningConfig,
    given: Mapping[str, Hits],
    device: str = "cpu",
    memory_bytes: int = DEFAULT_MEMORY,
) -> dict[str, Hits]:
    """The lists that the settings ask for and that were not given, among the passages `rows`.

    Row i belongs to the i-th train query. They do not change with the model in training: a caller that mines
    in rounds may ask once and give them back each time. `memory_bytes` bounds the second model's search.
    """
    found: dict[str, Hits] = {}
    wants_words = "lexical" in config.quotas and "lexical" not in given
    if not wants_words and (config.second_model is None or "second" in given):
        return found
    all_queries, all_passages = text.data.queries.full(), text.data.passages.full()
    queries = [all_queries[row] for row in text.data.splits["train"].judged_queries.tolist()]
    passages = [all_passages[row] for row in rows.tolist()]
    if wants_words:
        words = Lexical.fit(split_words(passages), k1=DEFAULT_K1, b=DEFAULT_B)
        found["lexical"] = words.search(split_words(queries), k=min(config.depth, len(rows)))
    if config.second_model is not None and "second" not in given:
        encoder = second_encoder(config.second_model).to(device)
        search = exact_search(
            encoder.encode(passages, kind="passage"), device=device, memory_bytes=memory_bytes
        )
        found["second"] = search(encoder.encode(queries, kind="query"), min(config.depth, len(rows)))
    return {
        name: Hits(hits.scores, np.where(hits.rows < 0, -1, rows[hits.rows])) for name, hits in found.items()
    }


def second_encoder(path: str) -> TextEncoder:
    """The second model of the settings: a sentence-transformers folder, a run that holds one, or an id.

    Raises:
        InputError: there is none, or it cannot be loaded.
    """
    try:
        found = find_model(path)
    except InputError as error:
        raise InputError(f"mining.second_model {error}") from None
    return load_encoder(found.path, name="mining.second_model")


def reranker_of(text: PreparedText, config: MiningConfig, *, device: str = "cpu") -> TextReranker | None:
    """The cross-encoder the settings name, over the texts of all rows; None where they name none."""
    if config.reranker is None:
        return None
    queries, passages = text.data.queries.full(), text.data.passages.full()
    return load_reranker(config.reranker, queries=queries, passages=passages, device=device)


def shingles_of(
    text: PreparedText, rows: Int64[np.ndarray, " S"], config: MiningConfig
) -> ShingleSets | None:
    """Word shingles of the passages `rows`; None where the settings do not ask for them."""
    if config.near_text is None:
        return None
    passages = text.data.passages.full()
    return ShingleSets.from_words(word_ids([passages[row] for row in rows.tolist()]))
