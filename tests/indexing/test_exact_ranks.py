import numpy as np
import pytest
import rank_search
import torch.multiprocessing as mp
from killed import tree
from test_fill import TEXTS, fill

from retrieval_cl.indexing import exact
from retrieval_cl.indexing.exact_ranks import search_over_ranks


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_ranks_give_the_hits_and_the_store_of_one_process(tmp_path, size):
    mp.spawn(rank_search.work, args=(tmp_path, size), nprocs=size)
    assert tree(tmp_path / "shared") == tree(fill(tmp_path / "alone", TEXTS)[0].folder)


def test_one_process_needs_no_group():
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((30, 5), dtype=np.float32)
    hits, whole = search_over_ranks(vectors, vectors, k=4), exact.search(vectors, vectors, k=4)
    np.testing.assert_array_equal(hits.rows, whole.rows)
    np.testing.assert_array_equal(hits.scores, whole.scores)
