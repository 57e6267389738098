"""What each of several ranks does: searches its queries, fills its shards, hears of another's failure."""

import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
from test_fill import RECIPE, TEXTS, Encoder

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.ranks import num_ranks, rank
from retrieval_cl.indexing import exact, exact_ranks, fill


def work(number, folder, size):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=number, world_size=size)
    try:
        check_search()
        check_store(folder)
    finally:
        dist.destroy_process_group()


def check_search():
    rng = np.random.default_rng(0)
    queries, passages = (rng.standard_normal((rows, 6), dtype=np.float32) for rows in (41, 90))
    passages[50:] = passages[:40]
    for some in (queries, queries[:1], queries[:0]):
        whole = exact.search(some, passages, k=100, first_pass=torch.float32)
        shared = exact_ranks.search_over_ranks(some, [passages[:33], passages[33:]], k=100)
        np.testing.assert_array_equal(shared.rows, whole.rows)
        np.testing.assert_array_equal(shared.scores, whole.scores)
    # Only the last rank meets the row that is not finite; the others hear its line.
    queries[40] = np.nan
    with pytest.raises((InputError, RuntimeError), match="queries: row 40 "):
        exact_ranks.search_over_ranks(queries, passages, k=3)


def check_store(folder):
    encoder = Encoder()
    store, done = fill.encode_into_store(folder / "shared", TEXTS, encode=encoder, recipe=RECIPE)
    # Four shards of ten rows each and four in the last, dealt in turn.
    share = sum([10, 10, 10, 4][rank() :: num_ranks()])
    assert (done.encoded, len(encoder.seen)) == (share, share)
    assert len(store) == len(TEXTS)

    def broken(texts):
        if rank() == 1:
            raise RuntimeError("no power")
        return Encoder()(texts)

    with pytest.raises((InputError, RuntimeError), match="no power"):
        fill.encode_into_store(folder / "broken", TEXTS, encode=broken, recipe=RECIPE)
    assert not (folder / "broken").exists()
