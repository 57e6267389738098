"""The CIFAR-10 recipes against their sources, whose numbers are typed here a second time."""

from pathlib import Path

import pytest

from retrieval_cl.config import load_any_config
from retrieval_cl.methods.config import HeadConfig

CONFIGS = Path(__file__).parents[1] / "configs"
# Batch, epochs, peak rate; then mean and deviation of pixels, and what the method is told.
PUBLISHED = {
    # README.md, "Training ResNet18 for 100 epochs": base rate 0.06 by 256 images; pixels from 0 to 1.
    "simclr_cifar10": (
        (512, 100, 0.12),
        ((0, 0, 0), (1, 1, 1)),
        {"temperature": 0.5, "projector": HeadConfig(preset="dkobak"), "views_together": False},
    ),
    # colab/moco_cifar10_demo.ipynb, the arguments it prints.
    "moco_cifar10": (
        (512, 200, 0.06),
        ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        {"temperature": 0.1, "queue": 4096, "momentum": 0.99, "momentum_schedule": "constant"}
        | {"norm": "split", "split_batches": 8, "symmetric": False, "projector": HeadConfig(preset="linear")},
    ),
    # cifar10_benchmark.py: 0.06 by 128 images, half the sum of two negative cosines.
    "byol_cifar10": (
        (512, 200, 0.24),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        {"momentum": 0.99, "momentum_schedule": "constant", "loss_factor": 0.5, "norm": "batch"}
        | dict.fromkeys(("projector", "predictor"), HeadConfig(preset="lightly_byol")),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_cifar_recipe_has_the_numbers_of_its_source(name):
    (batch_size, epochs, rate), pixels, told = PUBLISHED[name]
    config = load_any_config(CONFIGS / f"{name}.yaml")
    training, encoder = config.training, config.encoder
    assert (training.batch_size, training.epochs_per_round, training.rounds) == (batch_size, epochs, 1)
    assert training.peak_lr == pytest.approx(rate)
    assert (training.optimizer, training.momentum, training.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (training.decays, training.schedule, training.warmup_share) == ("all", "cosine", 0)
    assert training.max_grad_norm is None
    assert (encoder.kind, encoder.stem, encoder.depths, encoder.width) == ("resnet", "cifar", None, None)
    assert (encoder.mean, encoder.std) == pixels
    assert {key: getattr(config.method, key) for key in told} == told
