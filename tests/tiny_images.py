"""Tiny images: a folder of four colours in two splits, and settings that train on them in a second."""

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "grey": (120, 120, 120)}
# Small and quick: 3 steps.
SMALL = (
    "encoder.kind=convnet",
    "encoder.width=8",
    "encoder.depths=[1,1]",
    "encoder.size=8",
    "augmentation.preset=digits",
    "method.name=simclr",
    "method.projector={preset: moco_v2, hidden: 8, dim: 8}",
    "training.batch_size=16",
    "training.steps=3",
    "training.health_every=2",
    "training.log_every=1",
    "training.save_every=1",
    "training.precision=fp32",
)


def write_images(folder, *, train=8, test=4):
    """PNG files of 10 x 12 noisy pixels: `train` and `test` of each colour, in a folder for each."""
    draw = np.random.default_rng(0)
    for split, number in (("train", train), ("test", test)):
        for name, colour in COLOURS.items():
            (folder / split / name).mkdir(parents=True)
            for place in range(number):
                noise = draw.integers(-40, 41, (10, 12, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{place}.png")
    return folder
