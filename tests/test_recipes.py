"""The recipes of papers and of their code, whose numbers are typed here a second time."""

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


# Batch, epochs, peak rate, decay, epochs of warm-up; preset of the views; then what the method is told.
LARGE = {
    # arXiv 2002.05709, 2.2: 0.3 by 256 images, ten epochs of warm-up.
    "simclr": (
        (4096, 100, 4.8, 1e-6, 10),
        "simclr_imagenet",
        {"temperature": 0.1, "norm": "sync", "views_together": True}
        | {"projector": HeadConfig(preset="simclr_v1")},
    ),
    # main_moco.py, the README's options for v2.
    "moco_v2": (
        (256, 200, 0.03, 1e-4, 0),
        "moco_v2",
        {"temperature": 0.2, "queue": 65536, "momentum": 0.999, "momentum_schedule": "constant"}
        | {"symmetric": False, "predictor": None, "projector": HeadConfig(preset="moco_v2")},
    ),
    # CONFIG.md, 100 epochs: 0.6 by 256 images; builder.py: cross-entropy times 2 T, both directions added.
    "moco_v3": (
        (4096, 100, 9.6, 1e-6, 10),
        "moco_v3",
        {"temperature": 1.0, "queue": 0, "in_batch_keys": True, "symmetric": True, "loss_factor": 4 * 1.0}
        | {"momentum": 0.99, "momentum_schedule": "cosine", "norm": "sync"}
        | {"projector": HeadConfig(preset="moco_v3"), "predictor": HeadConfig(preset="moco_v3_predictor")},
    ),
    # byol/configs/byol.py, 1,000 epochs: 0.2 by 256 images.
    "byol": (
        (4096, 1000, 3.2, 1.5e-6, 10),
        "byol",
        {"momentum": 0.996, "momentum_schedule": "cosine", "loss_factor": 2.0, "norm": "sync"}
        | dict.fromkeys(("projector", "predictor"), HeadConfig(preset="byol")),
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_imagenet_recipe_has_the_numbers_of_its_paper(name):
    (batch_size, epochs, rate, decay, warmup), preset, told = LARGE[name]
    config = load_any_config(CONFIGS / f"{name}_imagenet.yaml")
    training, encoder = config.training, config.encoder
    assert (training.batch_size, training.epochs_per_round, training.rounds) == (batch_size, epochs, 1)
    assert (training.peak_lr, training.weight_decay) == (pytest.approx(rate), pytest.approx(decay))
    assert training.warmup_share * epochs == pytest.approx(warmup)
    # Norms and biases decay under SGD alone.
    assert (training.optimizer, training.decays) == (
        ("sgd", "all") if name == "moco_v2" else ("lars", "matrices")
    )
    assert (training.momentum, training.lars_eta, training.lars_clip) == (0.9, 1e-3, False)
    assert (training.schedule, training.max_grad_norm, config.augmentation.preset) == ("cosine", None, preset)
    # ResNet-50 on views of 224 pixels.
    assert (encoder.kind, encoder.block, encoder.depths) == ("resnet", "bottleneck", (3, 4, 6, 3))
    assert (encoder.side, encoder.stem, encoder.width) == (224, "imagenet", None)
    assert {key: getattr(config.method, key) for key in told} == told
