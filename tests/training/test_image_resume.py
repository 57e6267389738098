"""Runs of the image methods: what moves slowly and what is remembered is in their checkpoints."""

from functools import partial

import pytest
import torch
from image_methods import DIM, ImageSource, build_byol, build_moco
from tiny_run import Kill, Killed
from torch import nn

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.methods.image_tower import Branch, views_together
from retrieval_cl.methods.simclr import SimCLR
from retrieval_cl.training.callbacks import Save
from retrieval_cl.training.checkpoint import load_checkpoint, newest_checkpoint
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.leaks import CheckLeaks
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import Monitor
from retrieval_cl.training.trainer import start_run, train

# With BatchNorm, whose running statistics are state too, and keys in a random order.
CASES = {
    "moco": partial(build_moco, norm=True, symmetric=True, shuffle_keys=True, queue=20),
    "byol": partial(build_byol, norm=True, embed_views=views_together),
}


class Convolution(nn.Module):
    """Its weights lie with their channels last, as those of `ImageEncoder` do."""

    dim = DIM

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, DIM, kernel_size=2).to(memory_format=torch.channels_last)

    def features(self, pixels):
        return self.layer(pixels.contiguous(memory_format=torch.channels_last)).relu().mean(dim=(2, 3))


def build_convolution():
    torch.manual_seed(0)
    return SimCLR(Branch(Convolution(), nn.Linear(DIM, DIM), dim=DIM), Temperature(0.5))


def begin(build, folder, **more):
    settings = {"batch_size": 8, "num_negatives": 0, "rounds": 2, "save_every": 3, "precision": "fp32"} | more
    config = TrainingConfig(**settings, lr=0.01, log_every=2, health_every=3, first_mined_round=2)
    log, source = MetricsLog(folder / "metrics.jsonl"), ImageSource()
    others = [Monitor(log), CheckLeaks(source, log)]
    run = start_run(build(), config, steps_per_epoch=source.steps_per_epoch)
    return run, source, [*others, Save(folder / "checkpoints", others)]


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_killed_run_goes_on_in_the_same_bits(build, tmp_path, assert_equal_runs):
    whole, source, callbacks = begin(build, tmp_path / "whole")
    train(whole, source, callbacks=callbacks)
    killed, source, callbacks = begin(build, tmp_path / "killed")
    with pytest.raises(Killed):
        train(killed, source, callbacks=[*callbacks, Kill(5)])
    torch.manual_seed(999)
    run, source, callbacks = begin(build, tmp_path / "killed")
    load_checkpoint(newest_checkpoint(tmp_path / "killed/checkpoints"), run, callbacks=callbacks)
    assert run.step == 4
    train(run, source, callbacks=callbacks)
    assert_equal_runs(run, whole)
    names = [name for name in run.method.state_dict() if name.startswith(("twin.", "queue."))]
    assert len(names) == sum(1 for name in whole.method.state_dict() if name.startswith(("twin.", "queue.")))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
def test_optimizer_of_channels_last_weights_goes_on_in_the_same_bits(optimizer, tmp_path, assert_equal_runs):
    """A file keeps no order in memory, and a fused optimiser pairs weight and momentum by their places."""
    whole, source, callbacks = begin(
        build_convolution, tmp_path / "whole", optimizer=optimizer, keep_checkpoints=9
    )
    train(whole, source, callbacks=callbacks)
    saved = tmp_path / "whole/checkpoints/step-00000004"
    run, source, callbacks = begin(build_convolution, tmp_path / "resumed", optimizer=optimizer)
    load_checkpoint(saved, run, callbacks=callbacks)
    train(run, source, callbacks=callbacks)
    assert_equal_runs(run, whole)
    weight = run.method.encoder.layer.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    moments = [value for value in run.optimizer.state[weight].values() if value.ndim == 4]
    assert moments and all(moment.stride() == weight.stride() for moment in moments)


def test_checkpoint_holds_twin_and_queue(tmp_path):
    run, source, callbacks = begin(CASES["moco"], tmp_path)
    train(run, source, callbacks=callbacks)
    state = run.method.state_dict()
    assert {name.partition(".")[0] for name in state} == {"branch", "twin", "temperature", "queue"}
    assert state["queue.pushed"].tolist() == [8 * 16] and state["queue.ids"].min() >= 10
    assert not torch.equal(state["twin.module.projector.weight"], state["branch.projector.weight"])
    assert not torch.equal(
        state["twin.module.encoder.norm.running_mean"], state["branch.encoder.norm.running_mean"]
    )
    other, _, callbacks = begin(partial(build_moco, norm=True, symmetric=True, queue=21), tmp_path)
    with pytest.raises(InputError, match=r"another model.*size mismatch for queue\.vectors"):
        load_checkpoint(newest_checkpoint(tmp_path / "checkpoints"), other, callbacks=callbacks)


def test_twin_is_no_parameter_of_the_optimizer(tmp_path):
    run, _, _ = begin(CASES["byol"], tmp_path)
    names = [name for group in run.optimizer.param_groups for name in group["names"]]
    assert names and not any(name.startswith("twin.") for name in names)
