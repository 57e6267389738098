"""Searches an index of images or of captions by words and by images: one space holds both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.images import ArrayImages
from retrieval_cl.encoders.image_text import ImageTextEncoder
from retrieval_cl.encoders.load_image_text import load_image_text_encoder
from retrieval_cl.encoders.words import split_words
from retrieval_cl.indexing.fusion import reciprocal_rank_fusion
from retrieval_cl.indexing.index import Index
from retrieval_cl.indexing.recall import without_own
from retrieval_cl.indexing.thumbnails import to_jpeg
from retrieval_cl.reporting.contact_sheet import Tile, write_contact_sheet
from retrieval_cl.runs.models import find_model
from retrieval_cl.sources.images.folder import SUFFIXES
from retrieval_cl.sources.images.single import read_image

_FUSED_DEPTH = 100


@final
@dataclass(frozen=True)
class ImageTextHit:
    """One image or caption as a searcher sees it.

    Attributes:
        rank: from 1.
        score: cosine, or as the mode has it.
        id: of the image or caption.
        title: of an image its first caption or class, "" where none is known; of a caption its image.
        text: of an image its captions, a line each; of a caption itself.
        picture: a small JPEG file; None: a caption.
    """

    rank: int
    score: float
    id: str
    title: str
    text: str
    picture: bytes | None = field(repr=False)

    @property
    def words(self) -> str:
        """What a terminal or a sheet says of it."""
        return self.text if self.picture is None else self.title or self.id


@final
@dataclass(frozen=True)
class ImageTextAnswer:
    """What was found for one text or image; `title` is the first caption of an image of the index."""

    query: str
    asked_by: Literal["text", "image"]
    mode: str
    hits: tuple[ImageTextHit, ...]
    picture: bytes | None = field(repr=False, default=None)
    title: str = ""

    def text(self) -> str:
        """A line a hit: of an image its id and caption, of a caption itself and its image."""
        lines = []
        for hit in self.hits:
            shown = (hit.id, hit.title) if hit.picture is not None else (hit.text, f"({hit.title})")
            lines.append(f"{hit.rank:>3}  {hit.score:.3f}  {'  '.join(shown)}".rstrip())
        return "\n".join(lines) or "nothing found"

    def to_json(self) -> dict[str, Any]:
        """JSON values, without pictures."""
        hits = [
            {key: getattr(hit, key) for key in ("rank", "score", "id", "title", "text")} for hit in self.hits
        ]
        return {"query": self.query, "asked_by": self.asked_by, "mode": self.mode, "hits": hits}


@final
@dataclass(frozen=True, eq=False)
class _Asked:
    """An image that is asked by: its vector, its picture, and its row in the index, -1 where it has none."""

    vectors: Float32[np.ndarray, "1 D"]
    picture: bytes
    row: int = -1
    title: str = ""


@final
class ImageTextSearcher:
    """An open index of a model of images with texts; the model is loaded with the first search."""

    def __init__(self, index: Index, *, model: str | None = None) -> None:
        """`model`: run or folder of the encoder; None: the one the index names."""
        assert index.embeds == "image_text", index.folder
        self.index = index
        self._model = model
        self._loaded: ImageTextEncoder | None = None

    def search(self, query: str, *, k: int = 10, mode: str = "dense") -> ImageTextAnswer:
        """The k best images or captions.

        Args:
            query: an image file, the id of an image of the index (which is left out of its own hits), or else
                a text.
            k: hits.
            mode: "dense", by the vectors; for texts among captions also "bm25" or "hybrid".

        Raises:
            InputError: an empty query, a file that is no image, what looks like an image file and is neither
                there nor in the index, k below 1, a mode that needs words where there are none, or another
                model than the index's.
        """
        if not query.strip():
            raise InputError("the query is empty; give some words, or an image file")
        if k < 1:
            raise InputError(f"-k {k}: expected at least 1")
        if mode != "dense" and self.index.holds_images:
            raise InputError(
                f"--mode {mode}: {self.index.folder} holds images, which have no words; use dense"
            )
        asked = self._image(query)
        if asked is None:
            return ImageTextAnswer(query, "text", mode, self._shown(self._by_text(query, k=k, mode=mode)))
        if mode != "dense":
            raise InputError(f"--mode {mode}: '{query}' is an image, which has no words; use dense")
        found = self.index.search(asked.vectors, k=min(k + (asked.row >= 0), len(self.index)))
        hits = self._shown(without_own(found, np.array([asked.row], dtype=np.int64), k=k))
        return ImageTextAnswer(query, "image", mode, hits, asked.picture, asked.title)

    def _by_text(self, query: str, *, k: int, mode: str) -> Hits:
        if mode == "bm25":
            return self.index.search_words(split_words([query]), k=k)
        vectors = self._encoder.encode_texts([query])
        if not vectors.any():
            raise InputError(f"'{query}': the model knows no word of it; ask by others")
        if mode == "dense":
            return self.index.search(vectors, k=k)
        depth = min(max(k, _FUSED_DEPTH), len(self.index))
        words = self.index.search_words(split_words([query]), k=depth)
        return reciprocal_rank_fusion((self.index.search(vectors, k=depth), words), k=k)

    def _image(self, query: str) -> _Asked | None:
        """The image that a query names; None where it is a text."""
        if _is_file(query):
            # As the images of the index were.
            made_by = self.index.manifest["made_by"]
            pixels = read_image(Path(query), size=made_by["size"], fit=made_by["fit"])
            return _Asked(self._encoder.encode_images(ArrayImages(pixels[None])), to_jpeg(pixels))
        row = self.index.row_of(query) if self.index.holds_images else None
        if row is not None:
            vectors = np.array(self.index.vectors[row : row + 1])
            picture, shown = self.index.thumbnails.take([row])[0], self.index.passages([row])[0]
            return _Asked(vectors, picture, row, shown.title)
        if query.lower().endswith(SUFFIXES):
            example = self.index.passages([0])[0].id
            known = f", and no image of {self.index.folder} has this id (such as '{example}')"
            raise InputError(f"'{query}': no such file{known if self.index.holds_images else ''}")
        return None

    def _shown(self, found: Hits) -> tuple[ImageTextHit, ...]:
        rows = [row for row in found.rows[0].tolist() if row >= 0]
        pictures: Sequence[bytes | None] = [None] * len(rows)
        if self.index.holds_images:
            pictures = self.index.thumbnails.take(rows)
        scores = found.scores[0, : len(rows)].tolist()
        shown = zip(scores, self.index.passages(rows), pictures, strict=True)
        return tuple(
            ImageTextHit(place, score, one.id, one.title, one.text, picture)
            for place, (score, one, picture) in enumerate(shown, start=1)
        )

    @property
    def _encoder(self) -> ImageTextEncoder:
        if self._loaded is None:
            path = self.index.encoder_path if self._model is None else Path(find_model(self._model).path)
            self._loaded = load_image_text_encoder(path)
            if self._loaded.fingerprint() != self.index.manifest["fingerprint"]:
                raise InputError(
                    f"{self.index.folder}: made by another model than {path}, or by the same before it "
                    "changed; search with the one it was made by, or index again"
                )
        return self._loaded


def write_sheet(path: Path, answers: Sequence[ImageTextAnswer], *, index: Index) -> None:
    """Writes the answers as a contact sheet: each query first, as words or picture, its hits behind it."""
    rows = [
        [
            Tile(answer.picture, answer.query if answer.picture is None else answer.title or _name(answer)),
            *(Tile(hit.picture, f"{hit.score:.2f} {hit.words}") for hit in answer.hits),
        ]
        for answer in answers
    ]
    what = "images" if index.holds_images else "captions"
    note = f"What was asked for, then the best {what} of {index.folder.name}."
    write_contact_sheet(path, rows, title=f"Found {what}", note=note)


def _name(answer: ImageTextAnswer) -> str:
    return Path(answer.query).name


def _is_file(query: str) -> bool:
    try:
        return Path(query).is_file()
    except OSError:
        return False  # a text longer than a name may be
