"""Quotas equal a slow loop; a quota for a source that is not there is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mining_reference import random_candidates
from test_miner import mine, random_list, setting

from retrieval_cl.core.errors import InputError
from retrieval_cl.mining import sampling
from retrieval_cl.mining.config import MiningConfig, Quota
from retrieval_cl.mining.quotas import Limits
from retrieval_cl.mining.rules import Candidates
from retrieval_cl.mining.table import SOURCES

few = settings(max_examples=40, deadline=None)


def slow_draw(candidates, keys, query, quotas, num):
    """Columns drawn for one query: each source's own first, then the best of all, each within its most."""
    kept = [c for c in range(keys.shape[1]) if candidates.kept[query, c]]
    best = sorted(kept, key=lambda c: (-keys[query, c], candidates.rows[query, c]))
    allowed, first, seen = [], [], {}
    for column in best:
        source = SOURCES[candidates.sources[query, column]]
        quota, place = quotas.get(source), seen.get(source, 0)
        seen[source] = place + 1
        if quota is None or quota.most is None or place < quota.most:
            allowed.append(column)
            if quota is not None and place < quota.least:
                first.append(column)
    chosen = (first + [c for c in allowed if c not in first])[:num]
    return sorted(chosen, key=lambda c: (-candidates.scores[query, c], candidates.rows[query, c]))


@few
@given(seed=st.integers(0, 2**32 - 1), num=st.integers(1, 7))
def test_draw_under_quotas_equals_the_loop(seed, num):
    rng = np.random.default_rng(seed)
    plain = random_candidates(rng)
    sources = rng.integers(0, 3, size=plain.rows.shape).astype(np.int8)
    candidates = Candidates(plain.rows, plain.scores, plain.ranks, sources, plain.kept)
    keys = rng.integers(-2, 3, size=plain.rows.shape).astype(np.float64)
    quotas = {"lexical": Quota(least=1, most=2), "dense": Quota(most=3), "previous": Quota(least=2)}
    left, first = Limits.from_quotas(quotas, num_negatives=num).apply(candidates, keys)
    columns = sampling.draw(left, keys, num=num, first=first)
    for query in range(len(keys)):
        wanted = slow_draw(candidates, keys, query, quotas, num)
        assert columns[query].tolist() == wanted + [-1] * (num - len(wanted))


@few
@given(seed=st.integers(0, 2**32 - 1))
def test_places_per_source_stay_within_their_quota_and_what_is_lacking_is_counted(seed):
    rng = np.random.default_rng(seed)
    query_vectors, passage_vectors, relations = setting(rng)
    extra = {"lexical": random_list(rng, len(query_vectors), len(passage_vectors))}
    quotas = {"lexical": Quota(least=2, most=2), "random": Quota(least=1, most=1)}
    config = MiningConfig(depth=6, num_negatives=4, relative_margin=None, quotas=quotas)
    table, counts = mine(query_vectors, passage_vectors, config=config, extra=extra, **relations)
    by_source = {name: (table.sources == SOURCES.index(name)).sum(axis=1) for name in quotas}
    assert (by_source["lexical"] <= 2).all() and (by_source["random"] <= 1).all()
    for name, quota in quotas.items():
        assert counts.unmet[name] == np.maximum(quota.least - by_source[name], 0).sum()
    filled = table.rows >= 0
    assert (filled[:, :-1] >= filled[:, 1:]).all(), "empty places are the last"


def test_quota_for_a_source_that_is_not_there_is_refused():
    query_vectors, passage_vectors, relations = setting(np.random.default_rng(0))
    config = MiningConfig(num_negatives=4, quotas={"lexical": 2})
    with pytest.raises(InputError, match=r"mining\.quotas\.lexical: nothing gives .* dense, random"):
        mine(query_vectors, passage_vectors, config=config, **relations)
