"""Images with captions of a Hugging Face data set: an id on the Hub or a folder saved by `datasets`."""

from __future__ import annotations

from typing import Any

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.checks import choose_column, split_name
from retrieval_cl.sources.hf import load_splits
from retrieval_cl.sources.image_text.gather import TextColumns, gather
from retrieval_cl.sources.image_text.parts import CaptionedPart, captioned
from retrieval_cl.sources.images.split_files import SPLITS, valid_splits
from retrieval_cl.sources.images.tables import IMAGE, dataset_images
from retrieval_cl.sources.lines import Records


def read_captioned_dataset(
    path: str, columns: TextColumns, *, image: str | None, subset: str | None, revision: str | None
) -> list[CaptionedPart]:
    """Reads a data set with a column of images and columns of captions; images are read when decoded.

    Raises:
        InputError: it cannot be loaded, a column is missing or of a wrong kind, or a row is broken.
    """
    found = load_splits(path, subset, revision, instead="kind 'image_text_table' with local files")
    return [_part(rows, f"{path}, split {name}", name, columns, image) for name, rows in found.items()]


def _part(rows: Any, where: str, split: str, columns: TextColumns, image: str | None) -> CaptionedPart:
    column = choose_column(rows.column_names, IMAGE, wanted=image, source=where, key="source.image_column")
    encoded = dataset_images(rows, column, split=split, where=where)
    table = rows.remove_columns([column]).to_list()
    # A table without other columns has no rows.
    records = Records(where, table or [{}] * len(rows), range(1, len(rows) + 1), unit="row")
    gathered = gather(records, encoded.names, columns)
    if gathered.splits is None and split_name(split) not in SPLITS:
        raise InputError(f"{where}: unknown split; valid are {valid_splits()}")
    label = gathered.label_column
    feature = None if label is None else rows.features.get(label)
    return captioned(
        gathered,
        encoded,
        rows=gathered.rows,
        split=split_name(split),
        class_names=getattr(feature, "names", None),
        stamp=f"{rows._fingerprint} {column}",
        where=where,
    )
