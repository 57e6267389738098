"""Tiny image encoders of each kind, and a few images: no download."""

import numpy as np

from retrieval_cl.core.images import ArrayImages
from retrieval_cl.encoders.image_config import ImageEncoderConfig
from retrieval_cl.encoders.load_image import build_image_encoder

TINY = {
    "convnet": {"kind": "convnet", "size": 16, "width": 4, "depths": (1, 2)},
    "resnet": {"kind": "resnet", "size": 32, "width": 8, "depths": (1, 1)},
    "bottleneck": {"kind": "resnet", "size": 32, "width": 8, "depths": (1, 1), "block": "bottleneck"},
    "cifar": {"kind": "resnet", "size": 16, "width": 8, "depths": (1, 1), "stem": "cifar"},
    "vit": {"kind": "vit", "size": 16, "patch_size": 4, "hidden_size": 8, "layers": 2, "heads": 2},
    "vit_cls": {
        "kind": "vit",
        "size": 16,
        "patch_size": 8,
        "hidden_size": 8,
        "layers": 1,
        "heads": 2,
        "pooling": "cls",
    },
}


def tiny_encoder(kind, *, seed=0, **settings):
    return build_image_encoder(ImageEncoderConfig(**(TINY[kind] | settings)), seed=seed)


def some_images(count, height=16, width=16):
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return ArrayImages(pixels)
