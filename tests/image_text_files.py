"""Seeded images with captions on disk, and which of them a loaded data set shows."""

import io

import numpy as np
import pytest
from PIL import Image

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.image_text.config import ImageTextSourceConfig
from retrieval_cl.sources.image_text.load import load_image_text


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)


def png(seed):
    stream = io.BytesIO()
    Image.fromarray(noise(seed)).save(stream, "PNG")
    return stream.getvalue()


def load(kind, path, **options):
    return load_image_text(
        ImageTextSourceConfig(kind=kind, path=str(path), **({"test_share": 0.0} | options))
    )


def refusal(kind, path, **options):
    with pytest.raises(InputError) as caught:
        load(kind, path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def seeds(data, rows=None):
    """Which of the seeded images each row shows."""
    pixels = data.images.take(np.arange(len(data.images)) if rows is None else rows)
    known = {noise(seed).tobytes(): seed for seed in range(40)}
    return [known[image.permute(1, 2, 0).numpy().tobytes()] for image in pixels]


def pictures(data):
    """Seed -> captions of each image."""
    rows = range(len(data.images))
    return {
        seed: [data.captions[caption] for caption in data.captions_of(np.array([row]))]
        for row, seed in zip(rows, seeds(data), strict=True)
    }


def split_seeds(data):
    return {split: seeds(data, rows) for split, rows in data.splits.items()}


def named(data):
    return [data.classes[label] if label >= 0 else None for label in data.labels]
