"""Settings of images with captions: which source is read, where captions, labels and splits stand in it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from retrieval_cl.sources.images.config import PixelSettings

ImageTextKind = Literal[
    "caption_digits", "image_text_table", "image_text_npz", "image_text_dataset", "image_text_tar"
]


class ImageTextSourceConfig(PixelSettings):
    """One data set of images with captions."""

    kind: ImageTextKind = Field(
        default="caption_digits",
        description="caption_digits: the 1,797 handwritten digits of scikit-learn with made captions, no "
        "download; image_text_table: a table (.csv, .tsv, .jsonl, .parquet) with a column of image paths or "
        "of encoded images, or a folder of those named by split; image_text_npz: an .npz file of images and "
        "a .jsonl file of captions; image_text_dataset: a data set of the Hub or one saved by `datasets`; "
        "image_text_tar: webdataset shards",
    )
    path: str | None = Field(
        default=None,
        description="all but caption_digits: file or folder; image_text_dataset: or id; image_text_tar: or "
        "a pattern such as shards/{000..010}.tar",
    )
    captions: str | None = Field(
        default=None,
        description="image_text_npz: file of the captions; None: the only .jsonl or .jsonl.gz file beside it",
    )
    image_root: str | None = Field(
        default=None,
        description="image_text_table: folder that image paths are relative to; None: that of the table",
    )
    image_column: str | None = Field(
        default=None,
        description="image_text_table, image_text_dataset: None takes 'image', 'img', 'jpeg', 'bytes', "
        "'path' or 'filepath'",
    )
    caption_columns: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="all but caption_digits: columns (or JSON fields) that hold a caption or a list of "
        "captions; None takes the first there is of 'caption', 'captions', 'text', 'texts' and 'title'; "
        "image_text_tar: where a .txt member has the caption, None takes that",
    )
    label_column: str | None = Field(
        default=None,
        description="all but caption_digits: class of the image, for zero-shot classification; "
        "'attributes.2' is the third value of a list, 'meta.kind' a field of an object; None takes 'label', "
        "'labels' or 'class', if there",
    )
    split_column: str | None = Field(
        default=None,
        description="all but caption_digits: None takes 'split', if there; rows whose split is 'none' are "
        "left out",
    )
    subset: str | None = Field(
        default=None,
        description="image_text_dataset: the name of the configuration, where there are several",
    )
    revision: str | None = Field(
        default=None, description="image_text_dataset: branch, tag or commit on the Hub"
    )
    warped: bool = Field(
        default=False,
        description="caption_digits: each turned within 20 degrees and shifted within 0.2 of its side, "
        "always alike",
    )
    digit_captions: Literal["class", "several"] = Field(
        default="several",
        description="caption_digits: class: one caption a class, so that all images share ten; several: "
        "four an image, by word, numeral and weight of its strokes",
    )
    stream: bool = Field(
        default=False,
        description="all but caption_digits: images are decoded when a batch wants them, and not kept; for "
        "data that fit neither memory nor disk once decoded; needs size",
    )

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.kind != "caption_digits" and self.path is None:
            raise ValueError(f"kind '{self.kind}' needs a path")
        for key, kinds in _USED_BY.items():
            if self.kind not in kinds and self._is_set(key):
                valid = " or ".join(f"'{kind}'" for kind in kinds)
                raise ValueError(f"{key} has no effect with kind '{self.kind}'; only with {valid}")
        if self.stream and self.size is None:
            raise ValueError("stream needs a size that all images are fitted to")
        for key in ("memory_gb", "device_gb"):
            if self.stream and self._is_set(key):
                raise ValueError(f"{key} has no effect with stream: decoded images are not kept")
        return self

    def _is_set(self, key: str) -> bool:
        return bool(getattr(self, key) != type(self).model_fields[key].default)


_TABLES = ("image_text_table", "image_text_dataset")
_FILES = (*_TABLES, "image_text_npz", "image_text_tar")
_USED_BY: dict[str, tuple[str, ...]] = {
    "path": _FILES,
    "captions": ("image_text_npz",),
    "image_root": ("image_text_table",),
    "image_column": _TABLES,
    "caption_columns": _FILES,
    "label_column": _FILES,
    "split_column": _FILES,
    "subset": ("image_text_dataset",),
    "revision": ("image_text_dataset",),
    "warped": ("caption_digits",),
    "digit_captions": ("caption_digits",),
    "stream": _FILES,
    "cache_dir": _FILES,
    "memory_gb": _FILES,
    "workers": _FILES,
    "max_broken": _FILES,
}
