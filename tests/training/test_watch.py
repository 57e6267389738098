"""What a look at a run does not take for a sign."""

import json

from image_methods import ImageSource, build_simclr

from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import Monitor
from retrieval_cl.training.trainer import start_run, train


def length(run):
    return sum(float(weight.detach().norm()) for weight in run.method.parameters())


def test_weights_that_grow_under_lars_are_no_fault(tmp_path):
    settings = {"batch_size": 8, "num_negatives": 0, "rounds": 1, "steps": 8, "precision": "fp32"}
    config = TrainingConfig(**settings, optimizer="lars", lr=10.0, lars_eta=0.3, health_every=2)
    source, log = ImageSource(), MetricsLog(tmp_path / "metrics.jsonl")
    run = start_run(build_simclr(), config, steps_per_epoch=source.steps_per_epoch)
    before = length(run)
    train(run, source, callbacks=[Monitor(log)])
    assert length(run) > 10 * before
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert all("growth" not in line["signals"] for line in lines if "signals" in line)
