"""What a model of images with texts indexes: images with captions, or images alone; and by which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.config import load_image_config, load_image_text_config
from retrieval_cl.core.images import Images
from retrieval_cl.kinds import run_kind
from retrieval_cl.reading import Values, parse_override, put_overrides, read_values
from retrieval_cl.runs.config import IndexConfig
from retrieval_cl.runs.evaluate import Say
from retrieval_cl.runs.index_images import class_names
from retrieval_cl.runs.models import Model, image_text_config_for
from retrieval_cl.runs.run_folder import CONFIG
from retrieval_cl.sources.image_text.config import ImageTextSourceConfig
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.sources.image_text.load import load_image_text
from retrieval_cl.sources.images.config import Fit, ImageSourceConfig
from retrieval_cl.sources.images.data import ImageData
from retrieval_cl.sources.images.decode import SizesDiffer
from retrieval_cl.sources.images.load import first_shape, load_images

AnyImageSource = ImageTextSourceConfig | ImageSourceConfig


@final
@dataclass(frozen=True)
class ToIndex:
    """The settings of an index: where images are read, and how they are indexed."""

    source: AnyImageSource
    index: IndexConfig


@final
@dataclass(frozen=True, eq=False)
class Contents:
    """Images to index, with captions where there are any.

    Attributes:
        name: for the manifest.
        images: of all splits.
        ids: their distinct names.
        titles: first caption of each image; without captions its class, "" where none is known.
        captions: of all images, in the order of their images; empty where there are none.
        caption_images: image row of each caption.
        test: image rows of the test split.
        made_by: how the data was made, for the manifest.
        size: side in pixels of the squares that images were fitted to; None: they are as they were.
        fit: how they were fitted.
    """

    name: str
    images: Images
    ids: Sequence[str]
    titles: Sequence[str]
    captions: Sequence[str]
    caption_images: Int64[np.ndarray, " C"]
    test: Int64[np.ndarray, " T"]
    made_by: Mapping[str, Any]
    size: int | None
    fit: Fit

    def captions_of(self) -> list[list[str]]:
        """The captions of each image."""
        bounds = np.searchsorted(self.caption_images, np.arange(len(self.ids) + 1)).tolist()
        return [list(self.captions[bounds[i] : bounds[i + 1]]) for i in range(len(self.ids))]


def what_to_index(
    model: Model, *, config: Path | None, overrides: Sequence[str], data: str | None
) -> ToIndex:
    """The config given, else that of the model's run, with `--set` and `--data` on top.

    `data`, or the section source of `config`, may be of images without captions. What is not of the model's
    own run is brought to the size of the images it was trained on, where no size is set.

    Raises:
        InputError: as `load_config`; or nothing says which images to read.
    """
    own = None if model.run is None else model.run / CONFIG
    given: Values = {}
    put_overrides(given, {}, overrides=overrides)
    if _has_captions(given, config=config, data=data):
        run = image_text_config_for(model, config=config, overrides=overrides, data=data)
        found = ToIndex(run.source, run.index)
    else:
        found = _images_alone(own, config=config, overrides=overrides, data=data)
    changes: Values = {}
    if own is not None and found.source.size is None:
        trained = load_image_text_config(own).source
        changes = {"size": trained.size, "fit": trained.fit}
    is_own = config is None and data is None and isinstance(found.source, ImageTextSourceConfig)
    if not is_own and found.source.path is not None and found.source.test_share is None:
        # Nothing is measured on them, and a few photos could not be split.
        changes["test_share"] = 0.0
    return ToIndex(found.source.model_copy(update=changes), found.index)


def read_contents(
    source: AnyImageSource, *, side: int, fit: Fit = "crop", say: Say = lambda line: None
) -> Contents:
    """Loads what is to be indexed.

    Args:
        source: of images, with captions or without.
        side: of the squares that images are fitted to where no size is set and they are of several sizes, or
            are photos without captions that are larger.
        fit: how they are fitted to them.
        say: gets a line where that is done.

    Raises:
        InputError: as the source does.
    """
    fitted = source.model_copy(update={"size": side, "fit": fit})
    note = f"images are fitted to squares of {side} pixels: {fit} (source.size, source.fit)"
    if source.size is None and isinstance(source, ImageSourceConfig) and min(first_shape(source)) > side:
        say(note)
        return _read(fitted)
    try:
        return _read(source)
    except SizesDiffer:
        if source.size is not None:
            raise
        say(note)
        return _read(fitted)


def _has_captions(given: Values, *, config: Path | None, data: str | None) -> bool:
    """Whether captions are looked for: as a source.kind that was set says, else by what stands at `data`."""
    source = given.get("source")
    named = source if isinstance(source, dict) else {}
    if "kind" in named:
        return run_kind(given) != "images"
    if data is not None:
        return "caption_columns" in named or names_captions(data)
    return config is None or run_kind(read_values(config)[0]) != "images"


def names_captions(data: str) -> bool:
    """Whether what `--data` names is of images with captions; photos in a folder, or an archive, are not."""
    path = Path(data).expanduser()
    if path.suffix == ".npz" or any(path.glob("*.npz")):
        folder = path.parent if path.suffix == ".npz" else path
        return any(folder.glob("*.jsonl")) or any(folder.glob("*.jsonl.gz"))
    tables = [path] if path.suffix == ".parquet" else sorted(path.glob("*.parquet"))
    if tables and tables[0].is_file():
        return _has_caption_column(tables[0])
    if not path.is_dir():
        return True
    return any(path.glob("*.tar")) or any(
        (path / f"dataset_{name}.json").is_file() for name in ("info", "dict")
    )


def _has_caption_column(table: Path) -> bool:
    import pyarrow
    import pyarrow.parquet

    from retrieval_cl.sources.image_text.gather import CAPTIONS

    try:
        return not set(CAPTIONS).isdisjoint(pyarrow.parquet.read_schema(table).names)
    except (OSError, pyarrow.ArrowInvalid):
        return True  # the reader says what is wrong


def _images_alone(
    own: Path | None, *, config: Path | None, overrides: Sequence[str], data: str | None
) -> ToIndex:
    """Settings of images without captions; those of the index are of `config`, else of the model's run."""
    ours = [one for one in overrides if parse_override(one)[0][0] == "source"]
    others = [one for one in overrides if one not in ours]
    if config is not None and run_kind(read_values(config)[0]) == "images":
        run = load_image_config(config, overrides, data=data)
        source, index = run.source, run.index
    else:
        source = load_image_config(None, ours, data=data).source
        index = load_image_text_config(config or own, others).index
    return ToIndex(source, index)


def _read(source: AnyImageSource) -> Contents:
    data: ImageTextData | ImageData
    if isinstance(source, ImageTextSourceConfig):
        data = load_image_text(source)
        first = np.searchsorted(data.caption_images, np.arange(len(data.ids))).tolist()
        titles = [data.captions[row] for row in first]
        captions, caption_images = data.captions, data.caption_images
    else:
        data = load_images(source)
        titles, captions, caption_images = class_names(data), (), np.zeros(0, dtype=np.int64)
    return Contents(
        data.name,
        data.images,
        data.ids,
        titles=titles,
        captions=captions,
        caption_images=caption_images,
        test=data.splits.get("test", np.zeros(0, dtype=np.int64)),
        made_by=data.made_by,
        size=source.size,
        fit=source.fit,
    )
