"""Settings that train a tiny model of images with texts on digits in a few seconds; its indexes; photos."""

import numpy as np
from PIL import Image

SMALL = (
    "source.kind=caption_digits",
    "source.dev_share=0.1",
    "encoder.dim=16",
    "encoder.image.kind=convnet",
    "encoder.image.width=8",
    "encoder.image.depths=[1,1]",
    "encoder.image.size=8",
    "encoder.text.kind=static",
    "encoder.text.dim=16",
    "encoder.text.vocab_size=200",
    "encoder.text.init=random",
    "training.batch_size=64",
    "training.steps=30",
    "training.lr=0.01",
    "training.health_every=100",
    "training.precision=fp32",
)


def train_and_index(folder):
    """Leaves `run`, and of it the indexes `images.index` and `captions.index`, in the folder."""
    from retrieval_cl.config import load_image_text_config
    from retrieval_cl.runs.models import find_model
    from retrieval_cl.runs.stories import index_story
    from retrieval_cl.runs.train_image_text import train_image_text

    train_image_text(load_image_text_config(None, [*SMALL, f"output={folder / 'run'}"]))
    model = find_model(str(folder / "run"))
    for what in ("images", "captions"):
        story = index_story(model, config=None, overrides=[f"index.what={what}"], data=None, corpus=None)
        story(output=folder / f"{what}.index", copy_model=False, say=print, progress=None)
    return folder


def write_photos(folder, sizes=((30, 20), (20, 30), (24, 24))):
    """A photo of noise for each width and height: 0.png, 1.png ..."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number, (width, height) in enumerate(sizes):
        pixels = draw.integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder
