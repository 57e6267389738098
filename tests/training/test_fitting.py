import gc
import json
from functools import partial

import chunk_cases
import pytest
import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.training import fitting
from retrieval_cl.training.chunks import longest_row, whole_tokens
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.fitting import (
    WHOLE,
    FittedStep,
    choose_step,
    is_out_of_memory,
    unless_out_of_memory,
)
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.run import Callback
from retrieval_cl.training.steps import cached_step, plain_step
from retrieval_cl.training.trainer import train

CPU_ERROR = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
ERRORS = {"gpu": torch.OutOfMemoryError("CUDA out of memory."), "cpu": RuntimeError(CPU_ERROR)}


class Short:
    """A memory that holds so many tokens of one pass, and counts how often it was too short."""

    def __init__(self, limits, error):
        self.limits, self.error, self.times = limits, error, 0

    def __call__(self, stage, tokens):
        if tokens > self.limits.get(stage, WHOLE):
            self.times += 1
            raise self.error


@pytest.fixture
def log(tmp_path):
    return MetricsLog(tmp_path / "metrics.jsonl")


@pytest.fixture
def case():
    return chunk_cases.build_method(dropout=0.4), chunk_cases.build_batch()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    "limits",
    [
        {"with graph": 40},
        {"without graph": 40, "with graph": 70},
        {"backward": 40},
        {"with graph": 100, "backward": 30},
    ],
    ids=str,
)
def test_short_memory_gives_the_bits_of_the_smaller_chunks(case, log, limits, error):
    method, batch = case
    step, method.encoder.fail = FittedStep(log), Short(limits, ERRORS[error])
    loss, found = chunk_cases.gradients(step, method, batch)
    assert method.encoder.fail.times > 0
    assert min(limits.values()) / 2 <= step.chunk_tokens < whole_tokens(batch)
    fixed = partial(cached_step, chunk_tokens=step.chunk_tokens)
    expected_loss, expected = chunk_cases.gradients(fixed, method, batch)
    assert loss == expected_loss
    chunk_cases.assert_same_bits(found, expected)


@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_short_memory_in_the_loss_drops_kept_graphs_and_starts_again(case, log, stage):
    method, batch = case
    step, compare, left = FittedStep(log), method.objective, [2]

    def objective(contrast):
        losses = compare(contrast)
        if left[0] and stage == "forward":
            left[0] -= 1
            raise ERRORS["cpu"]
        if left[0]:
            contrast.anchors.register_hook(fail)
        return losses

    def fail(gradient):
        left[0] -= 1
        raise ERRORS["cpu"]

    method.objective = objective
    _, found = chunk_cases.gradients(step, method, batch)
    assert step.chunk_tokens == whole_tokens(batch) // 4
    _, expected = chunk_cases.gradients(partial(cached_step, chunk_tokens=step.chunk_tokens), method, batch)
    chunk_cases.assert_same_bits(found, expected)


def test_short_memory_in_the_loss_of_one_of_several_ranks_is_told(case, log, monkeypatch):
    method, batch = case

    def objective(contrast):
        raise ERRORS["gpu"]

    method.objective = objective
    monkeypatch.setattr(fitting, "num_ranks", lambda: 2)
    with pytest.raises(
        InputError, match=r"rank 0 ran out of memory in the loss.*chunk_tokens to a number below 288"
    ):
        FittedStep(log)(method, batch, chunk_cases.CAST)


def test_memory_that_suffices_gives_the_gradients_of_a_plain_step_in_one_pass(log):
    method, batch = chunk_cases.build_method(), chunk_cases.build_batch()
    step = FittedStep(log)
    _, expected = chunk_cases.gradients(plain_step, method, batch)
    method.encoder.masks.clear()
    _, found = chunk_cases.gradients(step, method, batch)
    chunk_cases.assert_near(found, expected)
    assert len(method.encoder.masks) == 3, "each view once"
    assert step.chunk_tokens == WHOLE


def test_single_row_that_does_not_fit_is_refused(case, log):
    method, batch = case
    method.encoder.fail = Short({"with graph": longest_row(batch) - 1}, ERRORS["gpu"])
    with pytest.raises(
        InputError, match=r"out of memory.*longest row \(9 tokens\); lower encoder.max_tokens"
    ):
        chunk_cases.gradients(FittedStep(log), method, batch)


def test_other_errors_pass(case, log):
    method, batch = case
    method.encoder.fail = Short({"with graph": 0}, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        chunk_cases.gradients(FittedStep(log), method, batch)
    assert method.encoder.fail.times == 1


def test_gradients_of_another_step_are_noticed(case, log):
    method, batch = case
    plain_step(method, batch, chunk_cases.CAST)
    with pytest.raises(AssertionError, match="another step"):
        FittedStep(log)(method, batch, chunk_cases.CAST)


def test_size_stays_and_is_told_once_and_travels_with_a_checkpoint(make_run, make_callbacks, log):
    run, source = make_run(rounds=1, epochs_per_round=1.0)
    step, sizes, embed = FittedStep(log), [], run.method.encoder.embed

    def short(tokens, *, kind):
        sizes.append(len(tokens) * max(1, int(tokens.counts.max())))
        if sizes[-1] > 6:
            raise ERRORS["gpu"]
        return embed(tokens, kind=kind)

    run.method.encoder.embed = short
    train(run, source, callbacks=[step], take_step=step)
    assert 1 < step.chunk_tokens <= 6
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines == [{"step": 1, "chunk_tokens": step.chunk_tokens}]
    assert sum(size > 6 for size in sizes) < len(sizes) / 2
    other = FittedStep(log)
    other.load_state(json.loads(json.dumps(step.state())), run)
    assert other.chunk_tokens == step.chunk_tokens
    other.on_step(run, torch.zeros(()), {})
    assert len(log.path.read_text().splitlines()) == 1


def test_real_allocator_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.float64)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(ERRORS["gpu"])
    assert not is_out_of_memory(RuntimeError("out of luck"))
    assert not is_out_of_memory(ValueError(CPU_ERROR))


def test_what_a_failed_try_held_is_given_back():
    alive = []

    class Held:
        def __init__(self):
            alive.append(self)

        def __del__(self):
            counts.append(1)

    counts = []

    def fails():
        held = Held()
        alive.clear()
        assert held is not None
        raise RuntimeError(CPU_ERROR)

    gc.disable()
    try:
        assert unless_out_of_memory(fails) is None
        assert counts == [1]
    finally:
        gc.enable()


def test_config_chooses_the_step(log):
    step, callbacks = choose_step(TrainingConfig(), log)
    assert (step, callbacks) == (plain_step, [])
    step, callbacks = choose_step(TrainingConfig(chunk_tokens=100, graph_tokens=7), log)
    assert (step.func, step.keywords) == (cached_step, {"chunk_tokens": 100, "graph_tokens": 7})
    assert callbacks == []
    step, callbacks = choose_step(TrainingConfig(chunk_tokens="auto"), log)
    assert isinstance(step, FittedStep) and callbacks == [step]
    assert isinstance(step, Callback)
