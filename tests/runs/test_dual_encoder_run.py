"""Rounds of mining and training, called with objects as quickstart calls them."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.methods.dual_encoder import DualEncoder
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.runs import rounds
from retrieval_cl.runs.further_candidates import further_hits
from retrieval_cl.runs.prepare import given_hits, given_table


def lines_of(run):
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def weights_of(run):
    return {name: value.clone() for name, value in run.encoder.state_dict().items()}


def test_same_seed_gives_the_same_bits_and_another_seed_others(train_tiny):
    last = "evaluation.keep=last"
    first, again, other = (
        train_tiny("a", last),
        train_tiny("b", last),
        train_tiny("c", last, "training.seed=1"),
    )
    assert first.encoder.fingerprint() == again.encoder.fingerprint() != other.encoder.fingerprint()
    assert first.dev == again.dev


def test_each_round_but_the_first_is_mined_for_with_its_own_weights(train_tiny):
    run = train_tiny("a", "training.rounds=3", "evaluation.keep=last")
    assert [one.round for one in run.rounds] == [1, 2]
    mined = {line["round"]: line["step"] for line in lines_of(run) if "mining" in line}
    assert mined == {1: 5, 2: 10} and run.steps == 15
    assert run.rounds[0].counts.score_quantiles != run.rounds[1].counts.score_quantiles
    assert run.scores is not None
    assert {"train", "mine", "evaluate on dev", "checkpoints"} == run.seconds.keys()


def test_control_without_mined_negatives_takes_as_many_steps(train_tiny):
    last = "evaluation.keep=last"
    mined, control = train_tiny("a", last), train_tiny("b", last, "training.num_negatives=0")
    assert control.steps == mined.steps
    assert control.rounds == () and control.scores is None
    assert control.encoder.fingerprint() != mined.encoder.fingerprint()


def test_best_weights_on_dev_are_kept(train_tiny):
    # A rate that ruins the weights: the best were those before the first step.
    settings = ("training.lr=10", "training.max_grad_norm=null", "training.warmup_share=0")
    best = train_tiny("a", *settings)
    last = train_tiny("b", *settings, "evaluation.keep=last")
    dev = {line["step"]: line["dev"]["recall@10"] for line in lines_of(best) if "dev" in line}
    assert best.dev["recall@10"] == max(dev.values())
    assert dev[best.kept_step] == max(dev.values())
    assert last.kept_step == last.steps and last.dev["recall@10"] == dev[last.steps]
    if best.kept_step != last.kept_step:
        assert best.encoder.fingerprint() != last.encoder.fingerprint()


def test_run_without_dev_keeps_the_last_weights(train_tiny, tiny_data):
    data = dataclasses.replace(
        tiny_data, splits={name: qrels for name, qrels in tiny_data.splits.items() if name != "dev"}
    )
    run = train_tiny("a", data=data)
    assert run.kept_step == run.steps and run.dev == {}


def test_no_held_out_pair_enters_training(train_tiny, tiny_data, monkeypatch):
    seen = set()
    embed = DualEncoder.embed

    def remember(self, batch):
        seen.update(batch.views["query"].ids.tolist())
        return embed(self, batch)

    monkeypatch.setattr(DualEncoder, "embed", remember)
    train_tiny("a")
    held_out = {row for split in ("dev", "test") for row in tiny_data.splits[split].queries.tolist()}
    assert seen and not seen & held_out


def test_given_negatives_are_the_first_table_and_candidates_of_mining(tiny_data, train_tiny):
    train = tiny_data.splits["train"].judged_queries
    right = tiny_data.splits["train"].relevant(len(tiny_data.queries))
    lists = [[] for _ in range(len(tiny_data.queries))]
    for query in train.tolist()[1:]:
        lists[query] = [row for row in range(3) if row not in right[query]][:2]
    data = dataclasses.replace(tiny_data, given_negatives=Ragged.from_lists(lists))
    table = given_table(data, num_negatives=1)
    assert isinstance(table, NegativeTable) and table.rows.shape == (len(train), 2)
    assert (table.rows[0] == -1).all()
    for line, query in enumerate(train.tolist()):
        assert [row for row in table.rows[line].tolist() if row >= 0] == lists[query]
    hits = given_hits(data, train)["given"]
    assert np.array_equal(hits.rows, table.rows)
    assert given_table(data, num_negatives=0) is None and given_table(tiny_data, num_negatives=2) is None
    last = "evaluation.keep=last"
    with_given, without = train_tiny("a", last, data=data), train_tiny("b", last)
    assert with_given.encoder.fingerprint() != without.encoder.fingerprint()
    assert with_given.rounds[0].counts.found["given"] > 0


def test_further_candidates_are_mined_too(train_tiny, tiny_data):
    train = tiny_data.splits["train"].judged_queries
    rows = np.tile(np.arange(5), (len(train), 1))
    extra = {"lexical": Hits(np.zeros(rows.shape, dtype=np.float32), rows)}
    run = train_tiny("a", extra=extra)
    assert run.rounds[0].counts.found["lexical"] == rows.size


def test_method_that_needs_other_views_is_refused(train_tiny, monkeypatch):
    monkeypatch.setattr(DualEncoder, "views", ("view_a", "view_b"))
    with pytest.raises(InputError, match="needs views view_a, view_b; text gives query, positive, negative"):
        train_tiny("a")


def test_resume_without_a_checkpoint_is_refused(train_tiny):
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        train_tiny("a", resume=True)


def test_training_moves_the_weights(train_tiny, encoder):
    run = train_tiny("a", "evaluation.keep=last")
    before, after = encoder.state_dict(), weights_of(run)
    assert any(not torch.equal(before[name], after[name]) for name in after)


def test_a_quota_of_the_previous_round_is_filled_from_the_second_table_on(train_tiny):
    settings = ("training.rounds=3", "mining.quotas={previous: 1, lexical: 1}", "mining.num_negatives=4")
    first, second = (one.counts for one in train_tiny("a", *settings).rounds)
    assert first.drawn["lexical"] > 0 and first.drawn.get("previous", 0) == 0
    assert second.drawn["lexical"] > 0 and second.drawn["previous"] > 0


def test_lists_that_do_not_change_are_made_once(train_tiny, monkeypatch):
    made = []

    def counted(*arguments, **keywords):
        made.append(keywords["given"].keys())
        return further_hits(*arguments, **keywords)

    monkeypatch.setattr(rounds, "further_hits", counted)
    train_tiny("a", "training.rounds=4", "mining.quotas={lexical: 1}")
    assert len(made) == 1


def test_previous_negatives_do_not_go_with_mining_in_the_background(train_tiny):
    settings = ("mining.quotas={previous: 1}", "training.background=true", "training.swap_after=2")
    with pytest.raises(InputError, match=r"mining\.quotas\.previous does not go with training\.background"):
        train_tiny("a", *settings)
