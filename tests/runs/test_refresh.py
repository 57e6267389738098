"""Partial refresh: what is embedded anew, what stays, what it loses, and that it is found again."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from retrieval_cl.mining.counts import MiningCounts
from retrieval_cl.reporting.facts import MiningRound
from retrieval_cl.runs.probe import Probe
from retrieval_cl.runs.refresh import Refresh, RefreshFacts, refresh_lines
from retrieval_cl.runs.sharing import Alone
from retrieval_cl.runs.text_miner import searched_rows
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.metrics import MetricsLog

PART = ("training.refresh=candidates", "training.probe_passages=24", "training.precision=fp32")


@pytest.fixture
def make_refresh(text, encoder, make_config, tmp_path):
    def make(*settings):
        config = make_config(*PART, *settings)
        return Refresh(
            Probe.of(text, mining=config.mining, training=config.training),
            mined=searched_rows(text, config.mining),
            depth=config.mining.depth,
            make_vectors=lambda: Vectors(text, encoder, precision="fp32"),
            folder=tmp_path,
            log=MetricsLog(tmp_path / "metrics.jsonl"),
        )

    return make


@pytest.fixture
def queries(text, encoder):
    """New vectors of the train queries."""
    return lambda: Vectors(text, encoder, precision="fp32").queries(text.data.splits["train"].judged_queries)


def move(encoder, share):
    torch.manual_seed(1)
    with torch.no_grad():
        weights = next(encoder.parameters())
        weights.add_(share * weights.std() * torch.randn_like(weights))


def test_candidates_are_new_and_all_others_stale(make_refresh, queries, text, encoder):
    refresh = make_refresh("mining.depth=4", "mining.num_negatives=2", "training.probe_queries=8")
    before = refresh.passages(queries(), device="cpu").copy()
    assert np.array_equal(before, Vectors(text, encoder, precision="fp32").passages())
    move(encoder, 0.5)
    scores = queries() @ before.T
    candidates = np.unique(np.argsort(-scores, axis=1, kind="stable")[:, :4])
    after = refresh.passages(queries(), device="cpu")
    new = Vectors(text, encoder, precision="fp32").passages()
    stale = np.setdiff1d(np.arange(len(new)), candidates)
    assert len(stale) and np.array_equal(after[stale], before[stale])
    np.testing.assert_allclose(after[candidates], new[candidates], atol=1e-6)
    assert not np.allclose(new[stale], before[stale], atol=1e-3)


def test_refresh_as_deep_as_the_corpus_is_a_full_one(make_refresh, queries, text, encoder):
    refresh = make_refresh("mining.depth=48")
    refresh.passages(queries(), device="cpu")
    move(encoder, 0.5)
    np.testing.assert_allclose(
        refresh.passages(queries(), device="cpu"),
        Vectors(text, encoder, precision="fp32").passages(),
        atol=1e-6,
    )
    assert refresh.further()["lost against embedding all"] == "0.0 % of the probe's hits"


def test_loss_is_that_of_the_probe_among_stale_and_new_vectors(make_refresh, queries, text, encoder):
    refresh = make_refresh("mining.depth=3", "mining.num_negatives=2")
    probe = refresh._probe
    before = refresh.passages(queries(), device="cpu").copy()
    assert refresh._facts == RefreshFacts(48, 48)
    move(encoder, 2.0)
    after = refresh.passages(queries(), device="cpu")
    facts, new = refresh._facts, Vectors(text, encoder, precision="fp32")
    whole = probe.search(new, device="cpu")
    among = after[probe.passages]
    part = probe.search_among(new.queries(probe.queries), among, device="cpu", sharing=Alone())
    kept = [row in part[i] for i, rows in enumerate(whole) for row in rows if row >= 0]
    assert facts.lost_overlap == pytest.approx(1 - np.mean(kept)) and facts.lost_overlap > 0
    cosines = (before * new.passages()).sum(axis=1)[probe.passages]
    assert facts.cosine_mean == pytest.approx(cosines.mean(), abs=1e-5)
    assert facts.cosine_low == pytest.approx(np.quantile(cosines, 0.05), abs=1e-5)
    assert facts.encoded < facts.passages == 48


def test_what_a_refresh_lost_is_a_line_of_its_round(make_refresh, queries, encoder):
    refresh = make_refresh("mining.depth=3", "mining.num_negatives=2")
    refresh.passages(queries(), device="cpu")
    move(encoder, 2.0)
    refresh.passages(queries(), device="cpu")
    facts = refresh._facts
    counts = MiningCounts(0, {}, {}, 0, {}, 0, 0, 0, None, {}, {})
    rounds = [MiningRound(2, counts, further=refresh.further()), MiningRound(3, counts)]
    assert refresh_lines(rounds) == [
        f"mining for round 2: passages embedded anew: {facts.encoded} of 48, lost against embedding all: "
        f"{100 * facts.lost_overlap:.1f} % of the probe's hits"
    ]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "needs probe_passages"),
        ({"probe_passages": 9, "background": True, "swap_after": 1}, "does not go with background"),
        ({"probe_passages": 9, "num_negatives": 0}, "probe_passages has no effect"),
    ],
)
def test_refresh_that_cannot_be_measured_is_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        TrainingConfig(refresh="candidates", **settings)
