"""Indexes images: vectors, ids, classes, small pictures, and the encoder they belong to, in one folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from retrieval_cl.config import ImageRunConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.images import Images
from retrieval_cl.encoders.load_image import load_image_encoder
from retrieval_cl.indexing.folder import write_index
from retrieval_cl.indexing.thumbnails import to_jpeg
from retrieval_cl.runs.config import IndexConfig
from retrieval_cl.runs.evaluate import Say
from retrieval_cl.runs.index import Indexed, Progress, faiss_settings, refuse_what
from retrieval_cl.runs.models import Model
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.sources.images.data import ImageData
from retrieval_cl.sources.images.load import load_images

READ_ROWS = 1024
# Key in the manifest: how images were decoded, as those that are asked for must be.
FITTED = "fitted"


def index_images(
    config: ImageRunConfig,
    model: Model,
    *,
    output: Path,
    copy_model: bool = False,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> Indexed:
    """Indexes all images of the config's source, of all splits.

    Args:
        config: its sections source and index are read.
        model: embeds the images, and later those that are asked for.
        output: the index; what stands there is replaced.
        copy_model: put a copy of the model into the index, so that it may travel alone.
        say: gets a line now and then.
        progress: called with images done and images in all.

    Raises:
        InputError: images or model are missing or broken, or FAISS refuses the factory.
    """
    watch = Stopwatch()
    refuse_what(config.index, model)
    refuse_words(config.index)
    faiss = faiss_settings(config.index)
    data = load_images(config.source)
    encoder = load_image_encoder(Path(model.path)).to("cuda" if torch.cuda.is_available() else "cpu")
    say(f"{len(data.images):,} images; encoding")
    vectors = encoder.encode(data.images, progress=progress)
    built = write_index(
        output,
        vectors=vectors,
        ids=data.ids,
        titles=class_names(data),
        texts=[""] * len(data.ids),
        fingerprint=encoder.fingerprint(),
        encoder_path=Path(model.path),
        copy_encoder=copy_model,
        faiss=faiss,
        thumbnails=pictures(data.images),
        made_by={
            "data": data.name,
            "source": dict(data.made_by),
            FITTED: {"size": config.source.size, "fit": config.source.fit},
        },
        say=say,
    )
    return Indexed(
        output,
        len(data.images),
        words=None,
        seconds=watch.total,
        faiss=None if built is None else built.text(),
        what="images",
        asked="IMAGE --sheet hits.html",
    )


def refuse_words(config: IndexConfig) -> None:
    """Raises InputError for settings of words."""
    for key in ("lexical", "k1", "b"):
        if key in config.model_fields_set:
            raise InputError(f"index.{key} has no effect on images, which have no words; remove it")


def pictures(images: Images) -> Iterator[bytes]:
    """A small JPEG file of each image."""
    for start in range(0, len(images), READ_ROWS):
        rows = np.arange(start, min(start + READ_ROWS, len(images)), dtype=np.int64)
        for pixels in images.take(rows).permute(0, 2, 3, 1).cpu().numpy():
            yield to_jpeg(np.ascontiguousarray(pixels))


def class_names(data: ImageData) -> list[str]:
    """The class of each image; "" where none is known."""
    if data.labels is None:
        return [""] * len(data.ids)
    return [data.classes[label] if label >= 0 else "" for label in data.labels.tolist()]
