import random
from itertools import pairwise

import numpy as np
import pytest
import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.training import trainer
from retrieval_cl.training.callbacks import Remine
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.run import Callback, plan_rounds
from retrieval_cl.training.steps import plain_step
from retrieval_cl.training.trainer import train


class Notes(Callback):
    """Writes down what happens; may spend random numbers as a careless callback would."""

    def __init__(self, *, spend=False):
        self.losses, self.rounds, self.kinds, self.stops, self.spend = [], [], [], 0, spend

    def on_round(self, run):
        self.rounds.append((run.step, run.round, run.cursor))

    def on_step(self, run, loss, embeddings):
        self.losses.append(float(loss))
        self.kinds.append(sorted(embeddings))
        assert not any(vectors.requires_grad for vectors in embeddings.values())
        if self.spend:
            torch.rand(run.step), np.random.rand(3), random.random()  # noqa: NPY002

    def on_stop(self, run):
        self.stops += 1


def test_loss_drops(make_run, make_method):
    run, source = make_run(method=make_method(dropout=0.0), rounds=1, epochs_per_round=15, lr=0.05)
    notes = Notes()
    train(run, source, callbacks=[notes])
    assert run.step == run.steps == len(notes.losses) == 45
    assert np.mean(notes.losses[-6:]) < 0.5 * np.mean(notes.losses[:6])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_same_seed_gives_the_same_bits(make_run, assert_equal_runs, precision):
    runs = [make_run(precision=precision) for _ in range(2)]
    for run, source in runs:
        train(run, source)
    assert_equal_runs(runs[0][0], runs[1][0])


def test_other_seed_gives_other_weights(make_run):
    runs = [make_run(seed=seed) for seed in (0, 1)]
    for run, source in runs:
        train(run, source)
    first, second = (run.method.encoder.layer.weight for run, _ in runs)
    assert not torch.equal(first, second)


def test_callback_that_spends_random_numbers_changes_nothing(make_run, assert_equal_runs):
    runs = [make_run() for _ in range(2)]
    for (run, source), spend in zip(runs, (False, True), strict=True):
        train(run, source, callbacks=[Notes(spend=spend)])
    assert_equal_runs(runs[0][0], runs[1][0])


def test_rounds_are_announced_and_mined_once(make_run, mine_hardest, tmp_path):
    run, source = make_run()
    mined, notes = [], Notes()

    def mine(run):
        mined.append((run.step, run.round))
        return mine_hardest(run)

    train(run, source, callbacks=[Remine(mine, MetricsLog(tmp_path / "m.jsonl")), notes])
    assert notes.rounds == [(0, 0, 0), (3, 1, 0), (6, 2, 0)]
    assert mined == [(3, 1), (6, 2)]
    assert notes.kinds == [["positive", "query"]] * 3 + [["negative", "positive", "query"]] * 6
    assert notes.stops == 1


def test_first_round_is_mined_if_wanted(make_run, mine_hardest, tmp_path):
    run, source = make_run(first_mined_round=0)
    notes = Notes()
    train(run, source, callbacks=[Remine(mine_hardest, MetricsLog(tmp_path / "m.jsonl")), notes])
    assert notes.kinds == [["negative", "positive", "query"]] * 9


def test_mined_negatives_change_what_is_learned(make_run, mine_hardest, tmp_path):
    control, source = make_run()
    train(control, source)
    mined, source = make_run()
    train(mined, source, callbacks=[Remine(mine_hardest, MetricsLog(tmp_path / "m.jsonl"))])
    assert control.step == mined.step
    assert not torch.equal(control.method.encoder.layer.weight, mined.method.encoder.layer.weight)


def test_method_acts_after_each_step_on_the_new_weights(make_run, monkeypatch):
    run, source = make_run()
    seen = []

    def after_step(embeddings, batch, progress):
        assert not any(vectors.requires_grad for vectors in embeddings.values())
        seen.append((progress, run.method.encoder.layer.bias.detach().clone()))

    monkeypatch.setattr(run.method, "after_step", after_step)
    train(run, source)
    assert [progress for progress, _ in seen] == [step / 9 for step in range(9)]
    assert all(not torch.equal(a, b) for (_, a), (_, b) in pairwise(seen))
    assert torch.equal(seen[-1][1], run.method.encoder.layer.bias)


def test_gradient_is_limited(make_run):
    run, source = make_run(max_grad_norm=1e-6, steps=3, rounds=1)
    seen = []

    class Norms(Callback):
        def on_step(self, run, loss, embeddings):
            seen.append(run.grad_norm)

    train(run, source, callbacks=[Norms()])
    assert min(seen) > 1e-3, "the norm that is told is the one before the limit"
    first_moments = [run.optimizer.state[p]["exp_avg"] for p in run.method.parameters()]
    assert torch.stack([m.norm() for m in first_moments]).norm() <= 1e-6


def test_callbacks_are_stopped_after_an_error(make_run):
    class Breaks(Callback):
        def on_step(self, run, loss, embeddings):
            raise OSError("no")

    run, source = make_run()
    notes = Notes()
    with pytest.raises(OSError, match="no"):
        train(run, source, callbacks=[Breaks(), notes])
    assert notes.stops == 1


@pytest.mark.parametrize("rounds", [1, 4, 9])
def test_order_of_the_data_does_not_depend_on_the_rounds(make_run, rounds):
    run, source = make_run(steps=9, rounds=rounds, num_negatives=0)
    met = []

    class Watched:
        steps_per_epoch = source.steps_per_epoch

        def batches(self, negatives, **place):
            for batch in source.batches(negatives, **place):
                met.append(batch.views["query"].ids.tolist())
                yield batch

    train(run, Watched())
    whole = source.batches(None, seed=run.config.seed, round=0, num_steps=9)
    assert met == [batch.views["query"].ids.tolist() for batch in whole]


def test_source_that_ends_early_is_noticed(make_run):
    run, source = make_run()

    class Short:
        steps_per_epoch = 3

        def batches(self, negatives, *, num_steps, **place):
            return source.batches(negatives, num_steps=num_steps - 1, **place)

    with pytest.raises(AssertionError, match="ended before the round"):
        train(run, Short())


def test_seconds_are_those_of_the_loop_alone(make_run, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(trainer, "perf_counter", lambda: clock[0])

    class Sleeps(Callback):
        def on_step(self, run, loss, embeddings):
            clock[0] += 100.0

    def step(method, batch, cast):
        clock[0] += 0.25
        return plain_step(method, batch, cast)

    run, source = make_run(steps=4, rounds=2)
    train(run, source, callbacks=[Sleeps()], take_step=step)
    assert run.seconds == 1.0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rounds": 3}, (10, 10, 10)),
        ({"rounds": 2, "first_round_epochs": 2.0, "epochs_per_round": 0.5}, (20, 5)),
        ({"rounds": 3, "steps": 10}, (3, 3, 4)),
        ({"rounds": 2, "epochs_per_round": 0.01}, (1, 1)),
    ],
)
def test_rounds_are_planned_from_epochs_or_steps(settings, expected):
    assert plan_rounds(TrainingConfig(**settings), steps_per_epoch=10) == expected


def test_too_little_data_for_one_batch_is_refused():
    with pytest.raises(InputError, match=r"training.batch_size 512"):
        plan_rounds(TrainingConfig(), steps_per_epoch=0)


def test_place_follows_from_the_step(make_run):
    run, _ = make_run()
    places = []
    for step in (0, 2, 3, 8, 9):
        run.step = step
        places.append((run.round, run.cursor, run.last_round))
    assert places == [(0, 0, 0), (0, 2, 0), (1, 0, 0), (2, 2, 2), (2, 3, 2)]
    assert run.progress == 1.0
