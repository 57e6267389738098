"""Settings of image data: which source is read, how it is decoded, where it is kept, how it is split."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from retrieval_cl.settings import Settings

Fit = Literal["crop", "pad", "stretch"]
ImageKind = Literal["digits", "image_folder", "image_npz", "image_parquet", "image_dataset"]


class PixelSettings(Settings):
    """What all data with images have in common: how they are decoded, split and kept."""

    size: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="side in pixels of the square that each image is fitted to; None: as they are, which "
        "must be of one size",
    )
    fit: Fit = Field(
        default="crop",
        description="crop: the shorter side is resized to size and the middle cut out; pad: the longer side "
        "is resized to it and the rest filled with the colour of the image's own edge; stretch: both sides "
        "are",
    )
    test_share: float | None = Field(
        default=None,
        ge=0.0,
        lt=1.0,
        description="share of the train images that becomes test where the data has no test split; None: 0.3",
    )
    dev_share: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="share of the train images that becomes dev; only where the data has no dev split",
    )
    split_seed: int = Field(default=0, ge=0, description="seed of the test and dev shares")
    memory_gb: float = Field(
        default=4.0,
        gt=0,
        description="largest decoded data set kept in memory, in 10^9 bytes; a larger one stays on disk, "
        "memory-mapped, and needs cache_dir",
    )
    device_gb: float = Field(
        default=4.0,
        ge=0,
        description="largest decoded data set that lies on the GPU while it is trained on, in 10^9 bytes; a "
        "larger one is copied batch by batch; 0: never; without a GPU nothing is copied",
    )
    near_copies: bool = Field(
        default=False,
        description="train images that look alike (perceptual hash, checked on thumbnails) are one item, as "
        "those with equal pixels always are: never each other's negatives; costs half a minute for 50,000",
    )
    cache_dir: str | None = Field(
        default=None,
        description="folder where decoded images are kept for later runs; None: decoded anew by each run",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="processes that decode; None: as many as there are processors, one for a small data set",
    )
    max_broken: int = Field(
        default=10,
        ge=0,
        description="broken or missing images that are left out, by name, before the run stops",
    )

    @model_validator(mode="after")
    def _shares_leave_images(self) -> Self:
        if self.test_share is not None and self.test_share + self.dev_share >= 1:
            raise ValueError(
                f"test_share {self.test_share} and dev_share {self.dev_share} leave no image to train on"
            )
        if self.fit != "crop" and self.size is None:
            raise ValueError(f"fit '{self.fit}' has no effect without a size")
        return self


class ImageSourceConfig(PixelSettings):
    """One image data set."""

    kind: ImageKind = Field(
        default="digits",
        description="digits: the 1,797 handwritten digits of scikit-learn, no download; image_folder: "
        "files, flat or in a folder for each class, below train and test or not; image_npz: an .npz file "
        "with 'images' or with 'jpeg' and 'offsets', or a folder of those named by split; image_parquet: a "
        "column of encoded images; image_dataset: a data set of the Hub or one saved by `datasets`",
    )
    path: str | None = Field(default=None, description="all but digits: file or folder; image_dataset: or id")
    image_column: str | None = Field(
        default=None, description="image_parquet, image_dataset: None takes 'image', 'img', 'jpeg' or 'bytes'"
    )
    label_column: str | None = Field(
        default=None,
        description="image_parquet, image_dataset: None takes 'label', 'labels' or 'class', if there",
    )
    split_column: str | None = Field(
        default=None, description="image_parquet, image_dataset: None takes 'split', if there"
    )
    subset: str | None = Field(
        default=None, description="image_dataset: the name of the configuration, where there are several"
    )
    revision: str | None = Field(default=None, description="image_dataset: branch, tag or commit on the Hub")
    warped: bool = Field(
        default=False,
        description="digits: each turned within 20 degrees and shifted within 0.2 of its side, always alike",
    )

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.kind != "digits" and self.path is None:
            raise ValueError(f"kind '{self.kind}' needs a path")
        for key, kinds in _USED_BY.items():
            if self.kind not in kinds and getattr(self, key) != type(self).model_fields[key].default:
                valid = " or ".join(f"'{kind}'" for kind in kinds)
                raise ValueError(f"{key} has no effect with kind '{self.kind}'; only with {valid}")
        return self


_TABLES = ("image_parquet", "image_dataset")
_ENCODED = ("image_folder", "image_npz", *_TABLES)
_USED_BY: dict[str, tuple[str, ...]] = {
    "path": _ENCODED,
    "image_column": _TABLES,
    "label_column": _TABLES,
    "split_column": _TABLES,
    "subset": ("image_dataset",),
    "revision": ("image_dataset",),
    "warped": ("digits",),
    "cache_dir": _ENCODED,
    "memory_gb": _ENCODED,
    "workers": _ENCODED,
    "max_broken": _ENCODED,
}
