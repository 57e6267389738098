"""Searches an index of images by images: files, or images of the index itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.images import ArrayImages
from retrieval_cl.encoders.image import ImageEncoder
from retrieval_cl.encoders.load_image import load_image_encoder
from retrieval_cl.indexing.index import Index
from retrieval_cl.indexing.recall import without_own
from retrieval_cl.indexing.thumbnails import to_jpeg
from retrieval_cl.reporting.contact_sheet import Tile, check_suffix, write_contact_sheet
from retrieval_cl.runs.index_images import FITTED
from retrieval_cl.runs.models import find_model
from retrieval_cl.sources.images.single import read_image


@final
@dataclass(frozen=True)
class ImageHit:
    """One image as a searcher sees it; `rank` from 1, `title` its class, "" where none is known."""

    rank: int
    score: float
    id: str
    title: str
    picture: bytes = field(repr=False)


@final
@dataclass(frozen=True)
class ImageAnswer:
    """What was found for one image; `title` is its class, "" where none is known."""

    query: str
    picture: bytes = field(repr=False)
    hits: tuple[ImageHit, ...]
    title: str = ""

    def text(self) -> str:
        """A line a hit."""
        lines = [f"{hit.rank:>3}  {hit.score:.3f}  {hit.id}  {hit.title}".rstrip() for hit in self.hits]
        return "\n".join(lines) or "nothing found"

    def to_json(self) -> dict[str, Any]:
        """JSON values, without pictures."""
        hits = [{key: value for key, value in asdict(hit).items() if key != "picture"} for hit in self.hits]
        return {"query": self.query, "hits": hits}


@final
class ImageSearcher:
    """An open index of images with its encoder."""

    def __init__(self, index: Index, *, model: str | None = None) -> None:
        """Loads the encoder.

        Args:
            index: of images.
            model: run or folder of the encoder; None: the one the index names.

        Raises:
            InputError: the index holds texts, or was made by another encoder.
        """
        assert index.holds_images, index.folder
        self.index = index
        path = index.encoder_path if model is None else Path(find_model(model).path)
        self._fitted: dict[str, Any] = index.manifest["made_by"].get(FITTED, {})
        self._encoder: ImageEncoder = load_image_encoder(path)
        if self._encoder.fingerprint() != index.manifest["fingerprint"]:
            raise InputError(
                f"{index.folder}: made by another model than {path}, or by the same before it changed; "
                "search with the one it was made by, or index again"
            )

    def search(self, query: str, *, k: int) -> ImageAnswer:
        """The k images nearest to an image file, or to an image of the index named by its id.

        An image of the index is left out of its own hits; a file is decoded as the indexed images were.

        Raises:
            InputError: no such file and no such id, a file that is no image, or k below 1.
        """
        if k < 1:
            raise InputError(f"-k {k}: expected at least 1")
        own = self._row_of(query)
        if own is None:
            pixels = read_image(Path(query), **self._fitted)
            vectors = self._encoder.encode(ArrayImages(pixels[None]))
            return ImageAnswer(query, to_jpeg(pixels), self._hits(vectors, k=k, own=-1))
        vectors = np.array(self.index.vectors[own : own + 1])
        picture, title = self.index.thumbnails.take([own])[0], self.index.passages([own])[0].title
        return ImageAnswer(query, picture, self._hits(vectors, k=k, own=own), title)

    def _hits(self, vectors: Float32[np.ndarray, "1 D"], *, k: int, own: int) -> tuple[ImageHit, ...]:
        wanted = min(k + (own >= 0), len(self.index))
        found = without_own(self.index.search(vectors, k=wanted), np.array([own], dtype=np.int64), k=k)
        rows = [row for row in found.rows[0].tolist() if row >= 0]
        shown = zip(self.index.passages(rows), self.index.thumbnails.take(rows), strict=True)
        return tuple(
            ImageHit(place, score, one.id, one.title, picture)
            for place, ((one, picture), score) in enumerate(
                zip(shown, found.scores[0].tolist(), strict=False), start=1
            )
        )

    def _row_of(self, name: str) -> int | None:
        if Path(name).is_file():
            return None
        row = self.index.row_of(name)
        if row is None:
            raise InputError(
                f"'{name}': no such file, and no image of {self.index.folder} has this id "
                f"(such as '{self.index.passages([0])[0].id}')"
            )
        return row


def check_sheet(path: Path) -> None:
    """Raises InputError where a contact sheet cannot have this name; before any search."""
    check_suffix(path)


def write_sheet(path: Path, answers: Sequence[ImageAnswer], *, index: Index) -> None:
    """Writes the answers as a contact sheet: each query first, its hits behind it."""
    rows = [
        [
            Tile(answer.picture, answer.title or Path(answer.query).name),
            *(
                Tile(hit.picture, f"{hit.score:.2f} {hit.title or hit.id}", _same(answer.title, hit.title))
                for hit in answer.hits
            ),
        ]
        for answer in answers
    ]
    note = f"The image asked for, then its nearest neighbours by cosine in {index.folder.name}."
    write_contact_sheet(path, rows, title="Nearest images", note=note)


def _same(title: str, other: str) -> bool | None:
    """Whether both classes are one; None where either is not known."""
    return title == other if title and other else None
