"""FAISS indexes by factory string, inner product; the only place that imports faiss, which is optional."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, final

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits

# From here on an exhaustive search is too slow for one query at a time.
_FLAT_BELOW = 1_000_000
_TRAIN_ROWS = 1_000_000
_ADD_ROWS = 65_536


def resolve(factory: str, *, num_rows: int) -> str:
    """The factory string 'auto' stands for: Flat below a million rows, else HNSW over float16 vectors."""
    if factory != "auto":
        return factory
    return "Flat" if num_rows < _FLAT_BELOW else "HNSW32,SQfp16"


@final
class FaissIndex:
    """A trained index over all passages; row numbers are its ids."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def build(cls, vectors: Float32[np.ndarray, "N D"], *, factory: str, seed: int = 0) -> Self:
        """Trains where the factory asks for it, on at most a million rows, and adds all rows.

        Args:
            vectors: rows; may be a memory map. Inner product is searched: cosine where they are unit rows.
            factory: what `faiss.index_factory` takes, or 'auto'.
            seed: of the sample trained on.

        Raises:
            InputError: faiss is not installed, or refuses the factory string or its training data.
        """
        faiss = _faiss(factory)
        name = resolve(factory, num_rows=len(vectors))
        try:
            index = faiss.index_factory(vectors.shape[1], name, faiss.METRIC_INNER_PRODUCT)
            if not index.is_trained:
                index.train(_sample(vectors, seed=seed))
            for start in range(0, len(vectors), _ADD_ROWS):
                index.add(np.ascontiguousarray(vectors[start : start + _ADD_ROWS]))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].removeprefix("Error: ")
            raise InputError(
                f"faiss factory '{name}' for {len(vectors)} vectors of dim {vectors.shape[1]}: {reason}"
            ) from None
        _search_widely(faiss, index)
        return cls(index)

    def __len__(self) -> int:
        """Number of passages."""
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self._index.d)

    def search(self, queries: Float32[np.ndarray, "Q D"], *, k: int) -> Hits:
        """The k nearest by the index, with its own scores and tie order; -1 and -inf where it finds none."""
        if k < 1:
            raise InputError(f"k is {k}; expected at least 1 hit a query")
        scores, rows = self._index.search(np.ascontiguousarray(queries), k)
        return Hits(np.where(rows < 0, -np.inf, scores).astype(np.float32), rows.astype(np.int64))

    def save(self, path: Path) -> None:
        """Writes faiss's own format: `faiss.read_index` reads it too."""
        _faiss("the index").write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote; memory-mapped where the kind of index allows it.

        Raises:
            InputError: faiss is not installed, or the file is no faiss index.
        """
        faiss = _faiss(str(path))
        try:
            return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY))
        except RuntimeError as error:
            raise InputError(
                f"{path}: no readable faiss index: {str(error).strip().splitlines()[-1]}"
            ) from None


def _faiss(wanted: str) -> Any:
    try:
        import faiss
    except ImportError:
        raise InputError(
            f"'{wanted}' needs faiss, which is not installed: install retrieval-cl[cpu] or "
            "retrieval-cl[gpu], or set the faiss factory to null for exact search"
        ) from None
    return faiss


def _sample(vectors: Float32[np.ndarray, "N D"], *, seed: int) -> Float32[np.ndarray, "M D"]:
    if len(vectors) <= _TRAIN_ROWS:
        return np.ascontiguousarray(vectors)
    rows = np.random.default_rng(seed).choice(len(vectors), _TRAIN_ROWS, replace=False)
    return vectors[np.sort(rows)]


def _search_widely(faiss: Any, index: Any) -> None:
    # Unless told otherwise faiss looks into one list of thousands, and at 16 neighbours. Both are saved.
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf.nprobe = min(ivf.nlist, max(8, ivf.nlist // 16))
    hnsw = faiss.downcast_index(index.index if isinstance(index, faiss.IndexPreTransform) else index)
    if isinstance(hnsw, faiss.IndexHNSW):
        hnsw.hnsw.efSearch = max(hnsw.hnsw.efSearch, 128)
