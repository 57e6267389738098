"""The tiny run as fixtures."""

import pytest
import tiny_run
import torch

from retrieval_cl.training.callbacks import Evaluate, Remine, Save
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import Monitor
from retrieval_cl.training.trainer import train


@pytest.fixture
def make_method():
    return tiny_run.build_method


@pytest.fixture
def make_source():
    return tiny_run.build_source


@pytest.fixture
def mine_hardest():
    return tiny_run.mine_hardest


@pytest.fixture
def make_run():
    return tiny_run.build_run


@pytest.fixture
def make_callbacks(tmp_path):
    """The usual callbacks, over `tmp_path / name`."""
    return lambda name, **injected: build_callbacks(tmp_path / name, **injected)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A run with the usual callbacks that nothing cut short, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    run, source = tiny_run.build_run()
    train(run, source, callbacks=build_callbacks(folder))
    return run, folder


def build_callbacks(folder, *, mine=tiny_run.mine_hardest, evaluate=None):
    def sum_of_biases(run):
        return {"recall@10": float(run.method.encoder.layer.bias.detach().sum())}

    log = MetricsLog(folder / "metrics.jsonl")
    others = [Monitor(log), Remine(mine, log), Evaluate(evaluate or sum_of_biases, log, metric="recall@10")]
    return [*others, Save(folder / "checkpoints", others)]


@pytest.fixture
def assert_equal_runs():
    def check(first, second):
        assert first.step == second.step
        for (name, a), (_, b) in zip(
            first.method.state_dict().items(), second.method.state_dict().items(), strict=True
        ):
            assert torch.equal(a, b), name
        for a, b in zip(_optimizer_state(first), _optimizer_state(second), strict=True):
            assert torch.equal(a, b)

    return check


def _optimizer_state(run):
    for group in run.optimizer.param_groups:
        for parameter in group["params"]:
            state = run.optimizer.state[parameter]
            yield from (state[key] for key in sorted(state))
