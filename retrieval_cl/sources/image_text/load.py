"""Loads the images with captions a config names: decoded or streamed, split, what is left out named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Int64, UInt8

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.images import Images
from retrieval_cl.sources.image_text.config import ImageTextSourceConfig
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.sources.image_text.dataset import read_captioned_dataset
from retrieval_cl.sources.image_text.digits import read_caption_digits
from retrieval_cl.sources.image_text.gather import TextColumns
from retrieval_cl.sources.image_text.npz import read_captioned_npz
from retrieval_cl.sources.image_text.parts import CaptionedPart, caption_rows
from retrieval_cl.sources.image_text.scans import Scan, kept_scan
from retrieval_cl.sources.image_text.splits import first_rows, shared_captions, split_images
from retrieval_cl.sources.image_text.streamed import StreamedImages
from retrieval_cl.sources.image_text.table import read_captioned_table
from retrieval_cl.sources.image_text.tar import read_captioned_tars
from retrieval_cl.sources.images.cache import refuse_lost
from retrieval_cl.sources.images.digits import TEST_SHARE
from retrieval_cl.sources.images.encoded import JoinedParts
from retrieval_cl.sources.images.labels import join_labels
from retrieval_cl.sources.images.load import decode, joined_stamp, picked
from retrieval_cl.sources.images.placed import PickedImages


def load_image_text(config: ImageTextSourceConfig) -> ImageTextData:
    """Loads a data set: read by its kind, decoded (or to be, when wanted), split as the config asks.

    Images that are broken or missing, or have no caption, are left out; `made_by` names them ("broken"). It
    counts train images that were left out of every split because a held-out one has the same pixels
    ("leaked_train_images"), captions of one split that stand in another ("shared_captions"), and what a
    reader passed over ("images_without_split", "rows_without_image", "empty_captions", "repeated_captions").

    Raises:
        InputError: the data is missing or damaged, too many images are broken, or a setting does not fit it.
    """
    sources = READERS[config.kind](config)
    lost = _joined_lost(sources, config.max_broken)
    encoded = JoinedParts([source.part for source in sources])
    _refuse_repeats(encoded.names)
    if not len(encoded):
        raise InputError(f"source.path '{config.path}': no image with a caption{_first(lost)}")
    read = _READ[config.stream](config, encoded, sources, lost)
    parts = encoded.parts
    every = [texts for source in sources for texts in source.captions]
    captions, caption_images = caption_rows([every[row] for row in read.kept])
    labels, classes = join_labels(parts)
    given = [split for part in parts for split in part.splits or ["train"] * len(part.encoded)]
    come_split = config.kind == "caption_digits"
    splits, leaked = split_images(
        [given[row] for row in read.kept],
        read.digests,
        captions,
        caption_images,
        # Digits come split, by the permutation that makes accuracies comparable.
        test_share=0.0 if come_split else config.test_share,
        dev_share=0.0 if come_split else config.dev_share,
        seed=config.split_seed,
    )
    return ImageTextData(
        name=_name(config),
        images=read.images,
        ids=[encoded.names[row] for row in read.kept],
        captions=captions,
        caption_images=caption_images,
        labels=None if labels is None else labels[read.kept],
        classes=classes,
        splits=splits,
        made_by={
            "source": config.kind,
            "path": config.path,
            "size": list(read.images.size),
            "fit": config.fit,
            "stream": config.stream,
            "broken": dict(read.lost),
            "leaked_train_images": leaked,
            "shared_captions": shared_captions(splits, captions, caption_images),
            **_counts(sources),
            **_digits(config),
        },
        same=first_rows(read.digests),
    )


@final
@dataclass(frozen=True, eq=False)
class _Read:
    """Images that are not broken: rows of the source, images and digests; and why others are left out."""

    kept: Int64[np.ndarray, " K"]
    images: Images
    digests: UInt8[np.ndarray, "K 16"]
    lost: Mapping[str, str]


def _decoded(
    config: ImageTextSourceConfig,
    encoded: JoinedParts,
    sources: Sequence[CaptionedPart],
    lost: Mapping[str, str],
) -> _Read:
    stamp = joined_stamp([source.part for source in sources])
    decoded = decode(config, encoded, stamp=stamp)
    kept, lost = _without(encoded, decoded.broken, lost, config.max_broken)
    return _Read(kept, picked(decoded, kept), decoded.digests[kept], lost)


def _streamed(
    config: ImageTextSourceConfig,
    encoded: JoinedParts,
    sources: Sequence[CaptionedPart],
    lost: Mapping[str, str],
) -> _Read:
    assert config.size is not None, "ImageTextSourceConfig refuses to stream without a size"
    counted = dict(lost)
    images = StreamedImages(encoded, config.size, config.fit, config.workers, config.max_broken, counted)
    digests, broken = _scanned(config, images, sources)
    kept, lost = _without(encoded, broken, lost, config.max_broken)
    counted.update(lost)
    shown = images if len(kept) == len(images) else PickedImages(images, kept)
    return _Read(kept, shown, digests[kept], lost)


def _scanned(config: ImageTextSourceConfig, images: StreamedImages, sources: Sequence[CaptionedPart]) -> Scan:
    if config.cache_dir is None:
        return images.scan()
    stamp = joined_stamp([source.part for source in sources])
    folder = Path(config.cache_dir).expanduser()
    return kept_scan(folder, stamp, images.scan, num_images=len(images))


_READ: dict[bool, Callable[..., _Read]] = {False: _decoded, True: _streamed}


def _without(
    encoded: JoinedParts, broken: Mapping[int, str], lost: Mapping[str, str], max_broken: int
) -> tuple[Int64[np.ndarray, " K"], dict[str, str]]:
    """Rows that are not broken, and all that are lost, by name."""
    every = {**lost, **{encoded.names[row]: why for row, why in sorted(broken.items())}}
    refuse_lost(every, max_broken)
    rows = np.arange(len(encoded), dtype=np.int64)
    kept = np.setdiff1d(rows, np.array(sorted(broken), dtype=np.int64))
    if not len(kept):
        raise InputError(f"all {len(encoded)} images are broken{_first(every)}")
    return kept, every


def _joined_lost(sources: Sequence[CaptionedPart], max_broken: int) -> dict[str, str]:
    lost = {name: why for source in sources for name, why in source.lost.items()}
    refuse_lost(lost, max_broken)
    return lost


def _first(lost: Mapping[str, str]) -> str:
    return "".join(f"; first, '{name}': {why}" for name, why in list(lost.items())[:1])


def _refuse_repeats(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        name, count = Counter(names).most_common(1)[0]
        raise InputError(f"image '{name}' stands in {count} files or shards of the source; names must differ")


def _counts(sources: Sequence[CaptionedPart]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for source in sources:
        counts.update(source.counts)
    return dict(sorted(counts.items()))


def _digits(config: ImageTextSourceConfig) -> dict[str, Any]:
    if config.kind != "caption_digits":
        return {}
    return {"warped": config.warped, "digit_captions": config.digit_captions}


def _name(config: ImageTextSourceConfig) -> str:
    if config.kind == "caption_digits":
        return "caption_digits_warped" if config.warped else "caption_digits"
    path = Path(str(config.path)).expanduser()
    # Shards named by a pattern are called by their folder.
    return (path.parent if "{" in path.name else path).resolve().name.split(".")[0]


def _columns(config: ImageTextSourceConfig) -> TextColumns:
    return TextColumns(config.caption_columns, config.label_column, config.split_column)


def _path(config: ImageTextSourceConfig) -> Path:
    assert config.path is not None, "ImageTextSourceConfig refuses these kinds without a path"
    return Path(config.path).expanduser()


def _read_digits(config: ImageTextSourceConfig) -> list[CaptionedPart]:
    return read_caption_digits(
        config.digit_captions,
        warped=config.warped,
        split_seed=config.split_seed,
        test_share=TEST_SHARE if config.test_share is None else config.test_share,
        dev_share=config.dev_share,
    )


READERS: dict[str, Callable[[ImageTextSourceConfig], list[CaptionedPart]]] = {
    "caption_digits": _read_digits,
    "image_text_table": lambda config: read_captioned_table(
        _path(config),
        _columns(config),
        image=config.image_column,
        image_root=None if config.image_root is None else Path(config.image_root).expanduser(),
        stream=config.stream,
    ),
    "image_text_npz": lambda config: read_captioned_npz(
        _path(config), _columns(config), captions=config.captions
    ),
    "image_text_dataset": lambda config: read_captioned_dataset(
        str(config.path),
        _columns(config),
        image=config.image_column,
        subset=config.subset,
        revision=config.revision,
    ),
    "image_text_tar": lambda config: read_captioned_tars(str(config.path), _columns(config)),
}
