"""A tiny run on images, in plain functions that a spawned rank can call too: 48 images of 4 classes."""

import json

import numpy as np
import torch

from retrieval_cl.config import ImageRunConfig, check_training
from retrieval_cl.core.images import ArrayImages
from retrieval_cl.encoders.load_image import build_image_encoder
from retrieval_cl.runs.self_supervised import train_on_images
from retrieval_cl.sources.images.data import ImageData

SIDE, COUNT = 8, 48
TRAIN = np.arange(36, dtype=np.int64)
MINED = {"num_negatives": 2, "rounds": 2}
MINING = {"num_negatives": 4, "depth": 12, "rank_min": 2, "relative_margin": None}
# Keys that name a time or a speed.
CLOCKS = ("seconds", "pairs_per_second", "mining_seconds", "leak_check_seconds")


def make_data():
    """Noise around a picture of each class; image 1 is a copy of image 0."""
    generator = np.random.default_rng(0)
    labels = np.arange(COUNT, dtype=np.int64) % 4
    pictures = generator.integers(60, 196, (4, SIDE, SIDE, 3))
    noise = generator.integers(-40, 41, (COUNT, SIDE, SIDE, 3))
    pixels = (pictures[labels] + noise).astype(np.uint8)
    pixels[1] = pixels[0]
    return ImageData(
        name="tiny",
        images=ArrayImages(pixels),
        ids=[f"i{row}" for row in range(COUNT)],
        labels=labels,
        classes=("a", "b", "c", "d"),
        splits={"train": TRAIN, "dev": np.arange(36, COUNT, dtype=np.int64)},
    )


def item_ids():
    """Images 0 and 1 are one item."""
    groups = np.arange(COUNT, dtype=np.int64)
    groups[1] = 0
    return groups


def make_config(folder, *, method="simclr", encoder=None, training=None, **sections):
    """7 steps of 12 images; with `MINED` the last 4 of them with mined negatives."""
    method = {"name": method} if isinstance(method, str) else method
    steps = {"batch_size": 12, "steps": 7, "lr": 0.01, "precision": "fp32", "log_every": 2, "health_every": 3}
    config = ImageRunConfig.model_validate(
        {
            "output": str(folder),
            "encoder": encoder or {"kind": "convnet", "size": SIDE, "depths": [1, 1], "width": 4},
            "method": method,
            "augmentation": {"preset": "simclr_cifar"},
            "training": steps | (training or {}),
            "evaluation": {"knn_k": 3},
            **sections,
        }
    )
    check_training(config)
    return config


def run_images(config, *, data=None, groups=None, **options):
    """Trains from the config's first weights."""
    encoder = build_image_encoder(config.encoder, seed=config.training.seed)
    data, groups = make_data() if data is None else data, item_ids() if groups is None else groups
    config.folder.mkdir(parents=True, exist_ok=True)
    return train_on_images(data, encoder, groups=groups, config=config, **options)


def lines_of(run):
    """Lines of metrics without clocks."""
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


BY_SPLIT = {"kind": "vit", "size": SIDE, "patch_size": 4, "hidden_size": 8, "layers": 1, "heads": 2}
SGD = {"optimizer": "sgd", "lr": 0.05, "steps": 5}
# Name -> config; the last one's BatchNorm takes the rows of a rank alone.
RANK_CASES = {
    "simclr, sync norm": {"method": {"name": "simclr", "norm": "sync"}},
    "simclr, mined, sync norm": {
        "method": {"name": "simclr", "norm": "sync", "negatives": "private"},
        "training": SGD | MINED,
        "mining": MINING,
    },
    "moco, no norm": {"method": {"name": "moco", "queue": 20, "symmetric": True}, "encoder": BY_SPLIT},
    "moco, mined, sync norm": {
        "method": {"name": "moco", "queue": 20, "norm": "sync"},
        "training": SGD | MINED,
        "mining": MINING,
    },
    "byol, sync norm": {"method": {"name": "byol", "norm": "sync", "projector": {"hidden": 16, "dim": 8}}},
    "simclr, norm of a rank": {"method": {"name": "simclr"}},
}


def train_cases(folder):
    """Weights after each of `RANK_CASES`, by case and name."""
    found = {}
    for number, (name, sections) in enumerate(RANK_CASES.items()):
        config = make_config(folder / str(number), **({"training": SGD} | sections))
        found[name] = dict(run_images(config).encoder.state_dict())
    return found


def work(rank, folder):
    """What each of two ranks does."""
    from rank_runs import joined

    with joined(rank, folder):
        torch.save(train_cases(folder / "two"), folder / f"weights-{rank}.pt")
