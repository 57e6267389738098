"""The probe set: what is searched for, among what, and how deep."""

import numpy as np
import pytest
import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.runs.probe import Probe
from retrieval_cl.runs.vectors import Vectors


@pytest.fixture
def make_probe(make_config, text):
    def make(*settings):
        config = make_config(*settings)
        return Probe.of(text, mining=config.mining, training=config.training)

    return make


def test_hits_are_the_best_by_cosine_without_the_known(make_probe, text, encoder):
    probe = make_probe("training.probe_queries=9", "mining.depth=7")
    assert len(probe.queries) == 9 and probe.k == 7
    vectors = Vectors(text, encoder, precision="fp32")
    found = probe.search(vectors, device="cpu")
    scores = vectors.queries(probe.queries) @ vectors.passages().T
    known = text.known_passages()
    for hits, query, line in zip(found, probe.queries, scores, strict=True):
        right = known[int(query)]
        assert len(right) and not np.isin(right, hits).any()
        # The seven best, less those of the known that are among them; by score, as some are tied.
        best = np.sort(line)[::-1][:7]
        there = hits >= 0
        np.testing.assert_allclose(line[hits[there]], best[there], atol=1e-6)
        assert np.count_nonzero(~there) == np.count_nonzero(line[right] >= best[-1])


def test_same_seed_draws_the_same_and_another_seed_others(make_probe):
    few = ("training.probe_queries=9", "training.probe_passages=12")
    first, again, other = make_probe(*few), make_probe(*few), make_probe(*few, "training.seed=1")
    for name in ("queries", "passages"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))
        assert (np.diff(getattr(first, name)) > 0).all()


def test_a_share_of_the_passages_is_searched_to_the_same_share_of_the_ranks(make_probe, text):
    num_passages = len(text.data.passages)
    whole, half = (
        make_probe("mining.depth=40", "mining.rank_max=20", *more)
        for more in ((), (f"training.probe_passages={num_passages // 2}",))
    )
    assert (len(whole.passages), whole.k) == (num_passages, 20)
    assert (len(half.passages), half.k) == (num_passages // 2, 10)
    assert make_probe("training.probe_passages=1").k == 1


def test_only_queries_of_train_and_passages_that_are_mined_are_looked_at(make_probe, text):
    train = text.data.splits["train"]
    probe = make_probe("mining.candidates=train", "training.probe_queries=9999")
    assert np.array_equal(probe.queries, train.judged_queries)
    assert np.array_equal(probe.passages, np.unique(train.passages))


def test_changed_weights_are_seen(make_probe, text, encoder):
    probe = make_probe("mining.depth=7")
    vectors = Vectors(text, encoder, precision="fp32")
    before = probe.search(vectors, device="cpu")
    assert np.array_equal(before, probe.search(Vectors(text, encoder, precision="fp32"), device="cpu"))
    torch.manual_seed(0)
    with torch.no_grad():
        weights = next(encoder.parameters())
        weights.add_(weights.std() * torch.randn_like(weights))
    assert not np.array_equal(before, probe.search(Vectors(text, encoder, precision="fp32"), device="cpu"))


def test_a_bound_that_no_look_could_miss_is_refused(make_probe):
    drift = ("training.min_overlap=0.5", "training.probe_every=1", "training.remine_every=2")
    with pytest.raises(InputError, match=r"training\.min_overlap has no effect"):
        make_probe(*drift, "mining.depth=500")
    assert make_probe(*drift, "mining.depth=5").k == 5
