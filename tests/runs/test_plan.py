"""The plan's numbers are those of the arithmetic, and its lines say them."""

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing.exact import DEFAULT_MEMORY
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.runs.plan import plan_text, plan_vectors, search_memory

CONFIG = MiningConfig()


def test_vectors_at_hand_are_planned_by_their_sizes():
    vectors = np.ones((4000, 64), dtype=np.float32)
    plan = plan_vectors(vectors[:1000], vectors, config=CONFIG, memory_bytes=2**30)
    assert plan.vector_bytes == 5000 * 64 * 4
    assert plan.search_flop == 2 * 1000 * 4000 * 64 and plan.search_seconds > 0
    assert (plan.tokens, plan.encode_flop, plan.encode_seconds) == (None, None, None)
    # Lists of candidates at the least, and never much more than what there is to search.
    assert 100 * 1000 * CONFIG.depth < plan.memory_bytes < 2**28
    assert plan.lines()[0] == "plan: 1,000 queries, 4,000 passages of 64 numbers (1.2 MiB of vectors)"
    assert plan.lines()[1].startswith("plan: search 512 MFLOP, about ")


def test_an_index_is_said_to_need_less():
    vectors = np.ones((400, 8), dtype=np.float32)
    config = MiningConfig(factory="Flat")
    plan = plan_vectors(vectors, vectors, config=config, memory_bytes=2**30)
    assert "an index needs less" in plan.lines()[1]


def test_texts_are_planned_by_tokens_and_a_probe(text, encoder):
    queries = text.query_tokens.take(np.arange(10))
    num = len(text.passage_tokens)
    ways = {"config": CONFIG, "memory_bytes": 2**30}
    plan = plan_text(encoder, queries, text.passage_tokens, num_searched=num, **ways)
    assert plan.tokens == len(queries.values) + len(text.passage_tokens.values)
    # A static encoder sums vectors; no weight multiplies.
    assert plan.encode_flop == plan.tokens * encoder.dim
    assert 0 < plan.encode_seconds < 60
    assert f"encode {plan.tokens:,} tokens" in plan.lines()[1] and len(plan.lines()) == 3
    assert plan.to_dict()["queries"] == 10
    assert plan.search_flop == 2 * 10 * num * encoder.dim
    # All are encoded, whatever is searched.
    fewer = plan_text(encoder, queries, text.passage_tokens, num_searched=num // 2, **ways)
    assert (fewer.tokens, fewer.passages) == (plan.tokens, num)
    assert fewer.search_flop == 2 * 10 * (num // 2) * encoder.dim
    assert fewer.lines()[0].endswith(f"of vectors), {num // 2} of them searched")
    assert plan.lines()[0].endswith("of vectors)")


def test_the_pairs_of_a_reranker_are_counted_over_all_lists():
    vectors = np.ones((400, 8), dtype=np.float32)
    config = MiningConfig(reranker="folder", depth=50, quotas={"lexical": 1}, shortage="widen", widest=1000)
    plan = plan_vectors(vectors[:10], vectors, config=config, memory_bytes=2**30)
    assert plan.reranked == 10 * (400 + 50) and "rerank up to 4,500 pairs" in plan.lines()[1]
    assert plan_vectors(vectors, vectors, config=CONFIG, memory_bytes=2**30).reranked == 0


def test_memory_is_read_from_words_and_refused_where_it_bounds_nothing():
    assert search_memory(None, CONFIG) == DEFAULT_MEMORY
    assert search_memory("2GiB", CONFIG) == 2**31
    with pytest.raises(InputError, match="--memory 2GiB bounds exact search"):
        search_memory("2GiB", MiningConfig(factory="Flat"))
    with pytest.raises(InputError, match="--memory 1MiB: exact search needs at least"):
        search_memory("1MiB", CONFIG)
