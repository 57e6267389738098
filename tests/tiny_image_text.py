"""Images with captions made up for tests: image i is a single pixel of the value i."""

import zlib

import numpy as np

from retrieval_cl.core.images import ArrayImages
from retrieval_cl.core.relations import Ragged
from retrieval_cl.sources.image_text.data import ImageTextData

NUM_IMAGES = 30
NOUNS = ("dog", "cat", "horse", "bird", "girl", "boy", "ball", "tree")
PLACES = ("park", "street", "house", "garden", "field")


def make_data(seed=0):
    """30 images, 24 of them to train on, with one to three captions; some captions and images come twice."""
    generator = np.random.default_rng(seed)
    pixels = np.arange(NUM_IMAGES, dtype=np.uint8)
    pixels[[11, 22]] = 1
    captions, images = [], []
    for image in range(NUM_IMAGES):
        texts = {
            f"A {generator.choice(NOUNS)} and a {generator.choice(NOUNS)} in the {generator.choice(PLACES)}."
            for _ in range(1 + image % 3)
        }
        captions += sorted(texts)
        images += [image] * len(texts)
    # Equal but for case and blanks, of images 0 and 3.
    captions[0] = "A dog and a cat in the park."
    captions[images.index(3)] = "a dog  and a CAT in the park."
    rows = np.arange(NUM_IMAGES, dtype=np.int64)
    return ImageTextData(
        name="made up",
        images=ArrayImages(pixels[:, None, None, None].repeat(3, axis=3)),
        ids=[f"image {image}" for image in range(NUM_IMAGES)],
        captions=captions,
        caption_images=np.array(images, dtype=np.int64),
        labels=None,
        classes=(),
        splits={"train": rows[rows % 5 > 0], "test": rows[rows % 5 == 0]},
    )


def tokenize(texts):
    """Words, then the end, as numbers that tell the words apart."""
    return Ragged.from_lists(
        [[*(zlib.crc32(word.encode()) % 2**31 for word in text.split()), 1] for text in texts],
        dtype=np.int32,
    )
