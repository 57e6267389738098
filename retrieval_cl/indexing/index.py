"""An opened index: search by vectors and by words, and the passages to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing import exact, store
from retrieval_cl.indexing.approximate import search_near
from retrieval_cl.indexing.bm25 import Lexical
from retrieval_cl.indexing.faiss_index import FaissIndex
from retrieval_cl.indexing.passages import Passage, PassageFile
from retrieval_cl.indexing.postings import Words
from retrieval_cl.indexing.thumbnails import Thumbnails

PASSAGES, FAISS, LEXICAL = "passages.parquet", "index.faiss", "lexical"


@dataclass(frozen=True, eq=False)
class Index:
    """An opened index folder.

    Attributes:
        folder: where it stands.
        manifest: how it was made.
    """

    folder: Path
    manifest: Mapping[str, Any]

    def __len__(self) -> int:
        """Number of passages."""
        return int(self.manifest["count"])

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self.manifest["dim"])

    @property
    def encoder_path(self) -> Path:
        """The folder of the encoder. Raises InputError where the index keeps none or it is gone."""
        if self.manifest["encoder"] is None:
            raise InputError(f"{self.folder}: the index does not say which model made it; name one")
        path: Path = (self.folder / str(self.manifest["encoder"])).resolve()
        if not path.is_dir():
            raise InputError(f"{self.folder}: its model is not at {path}; move it back or name its new place")
        return path

    @cached_property
    def vectors(self) -> Float32[np.ndarray, "N D"]:
        """Memory-mapped, read-only."""
        return store.map_vectors(
            self.folder / store.VECTORS, num_bytes=self.manifest["files"][store.VECTORS]["bytes"]
        )

    @property
    def holds_images(self) -> bool:
        """Whether its rows are images, not texts."""
        # Indexes of before there were any do not say.
        return self.manifest.get("modality") == "images"

    @property
    def embeds(self) -> str:
        """What its model embeds: "texts", "images", or "image_text": both in one space."""
        # Indexes of before there were models of both do not say.
        known = "images" if self.holds_images else "texts"
        return str(self.manifest.get("embeds", known))

    @property
    def takes_images(self) -> bool:
        """Whether it can be asked by images."""
        return self.embeds != "texts"

    @cached_property
    def thumbnails(self) -> Thumbnails:
        """Small pictures of its rows. Raises InputError where it holds texts."""
        return Thumbnails.open(self.folder)

    @cached_property
    def has_words(self) -> bool:
        """Whether `search_words` can be used."""
        return bool(self.manifest["lexical"])

    def search(self, queries: Float32[np.ndarray, "Q D"], *, k: int) -> Hits:
        """The k nearest passages; all of them where k exceeds their number.

        Exact, or what the FAISS index finds with the settings it was measured with, scored and ordered as
        exact search does.

        Raises:
            InputError: k below 1, another width than the index has, or a query that is not finite.
        """
        if queries.shape[1] != self.dim:
            raise InputError(
                f"{self.folder}: vectors of dim {self.dim}, the query has dim {queries.shape[1]}; "
                "search with the encoder the index was made by"
            )
        found = min(k, len(self))
        if self._faiss is None or k < 1:
            return exact.search(queries, self.vectors, k=found)
        exact.check_finite(queries, name="queries")
        return search_near(self._faiss, queries, self.vectors, k=found, per_hit=self._per_hit)

    def search_words(self, query_words: Words, *, k: int) -> Hits:
        """The k best passages by BM25; all of them where k exceeds their number.

        Args:
            query_words: words of each query, split as the passages were.
            k: hits a query; a passage that shares no word is none.

        Raises:
            InputError: the index was written without words, or k is below 1.
        """
        return self._words.search(query_words, k=min(k, len(self)))

    def passages(self, rows: Sequence[int]) -> list[Passage]:
        """Ids, titles and texts of rows that `search` gave; -1 must not come here."""
        return self._passages.take(rows)

    def row_of(self, name: str) -> int | None:
        """The row with this id; None where there is none."""
        return self._passages.row_of(name)

    @cached_property
    def _faiss(self) -> FaissIndex | None:
        if self.manifest["faiss_factory"] is None:
            return None
        # The file holds the knob as it was tuned.
        index = FaissIndex.load(self.folder / FAISS)
        # Indexes of before GPUs searched do not say.
        described = {"gpus": 0, "fp16": True} | (self.manifest.get("faiss") or {})
        return index.on_gpus(num_gpus=described["gpus"], fp16=described["fp16"], at_most=True)

    @property
    def _per_hit(self) -> int:
        # Indexes of before recall was measured do not say.
        described = self.manifest.get("faiss")
        return 1 if described is None else int(described["search"]["candidates_per_hit"])

    @cached_property
    def _words(self) -> Lexical:
        if not self.has_words:
            raise InputError(
                f"{self.folder}: the index holds no words; build it anew with BM25 for hybrid search"
            )
        return Lexical.load(self.folder / LEXICAL)

    @cached_property
    def _passages(self) -> PassageFile:
        return PassageFile(self.folder / PASSAGES)
