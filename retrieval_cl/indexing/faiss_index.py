"""FAISS indexes by factory string, inner product; the only place that imports faiss, which is optional."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing import faiss_build, faiss_gpu
from retrieval_cl.indexing.faiss_choice import choose
from retrieval_cl.indexing.faiss_gpu import Say, last_line
from retrieval_cl.indexing.rows import Matrix, Rows

_MOST_EF = 1024


@final
@dataclass(frozen=True)
class Knob:
    """The one parameter that widens a search.

    Attributes:
        name: as faiss calls it: nprobe or efSearch.
        value: now set.
        most: beyond it nothing is gained.
    """

    name: str
    value: int
    most: int


@final
class FaissIndex:
    """A trained index over all passages; row numbers are its ids."""

    def __init__(self, index: Any, *, on_gpu: bool = False) -> None:
        self._index = index
        self._on_gpu = on_gpu

    @classmethod
    def build(
        cls,
        vectors: Matrix,
        *,
        factory: str,
        seed: int = 0,
        memory_bytes: int | None = None,
        num_gpus: int | None = 0,
        say: Say = lambda line: None,
    ) -> Self:
        """Trains on a sample where the factory asks for it, and adds all rows in blocks.

        The same vectors, seed and number of threads give the same index, but for graphs (HNSW), which
        several threads link in the order in which they come: these repeat with one thread alone.

        Args:
            vectors: rows; may be memory maps. Inner product is searched: cosine where they are unit rows.
            factory: what `faiss.index_factory` takes, or 'auto'.
            seed: of the sample trained on and of k-means.
            memory_bytes: bound on what is allocated beside the vectors; None: none.
            num_gpus: that train the lists; None: all that faiss sees. Rows are added on the CPU.
            say: gets a line where something is not done as asked.

        Raises:
            InputError: faiss is not installed, or refuses the factory string or its training data, or the
                index does not fit the memory.
        """
        faiss = load_faiss(factory)
        rows = Rows(vectors, name="vectors")
        if factory == "auto":
            factory = choose(len(rows), rows.dim, memory_bytes=memory_bytes).factory
        if not len(rows):
            raise InputError("no vectors; a FAISS index needs at least one")
        what = f"faiss factory '{factory}' for {len(rows)} vectors of dim {rows.dim}"
        try:
            index = faiss.index_factory(rows.dim, factory, faiss.METRIC_INNER_PRODUCT)
            faiss_build.seed(faiss, index, seed=seed)
            if not index.is_trained:
                sample = faiss_build.sample(
                    faiss, index, rows, seed=seed, memory_bytes=memory_bytes, what=what
                )
                faiss_build.train(
                    faiss, index, sample, gpus=faiss_gpu.count_gpus(faiss, wanted=num_gpus, say=say), say=say
                )
                del sample
            faiss_build.add(faiss, index, rows, memory_bytes=memory_bytes, what=what)
        except RuntimeError as error:
            raise InputError(f"{what}: {last_line(error)}") from None
        _search_widely(faiss, index)
        return cls(index)

    def __len__(self) -> int:
        """Number of passages."""
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self._index.d)

    @property
    def knob(self) -> Knob | None:
        """What widens the search; None for an index that always looks at everything."""
        faiss = load_faiss("the index")
        ivf = faiss.try_extract_index_ivf(self._index)
        if ivf is not None:
            return Knob("nprobe", int(ivf.nprobe), int(ivf.nlist))
        graph = _graph(faiss, self._index)
        if graph is None:
            return None
        return Knob("efSearch", int(graph.hnsw.efSearch), max(1, min(_MOST_EF, len(self))))

    def turn(self, value: int) -> None:
        """Sets the knob; an index without one takes nothing."""
        faiss = load_faiss("the index")
        ivf = faiss.try_extract_index_ivf(self._index)
        if ivf is not None:
            ivf.nprobe = value
            return
        graph = _graph(faiss, self._index)
        assert graph is not None
        graph.hnsw.efSearch = value

    def search(self, queries: Float32[np.ndarray, "Q D"], *, k: int) -> Hits:
        """The k nearest by the index, with its own scores and tie order; -1 and -inf where it finds none.

        Raises:
            InputError: k is below 1, or more than faiss takes on a GPU.
        """
        if k < 1:
            raise InputError(f"k is {k}; expected at least 1 hit a query")
        if self._on_gpu:
            faiss_gpu.check_limits(k, None)
        try:
            scores, rows = self._index.search(np.ascontiguousarray(queries), k)
        except RuntimeError as error:
            raise InputError(f"faiss refuses a search for k = {k}: {last_line(error)}") from None
        return Hits(np.where(rows < 0, -np.inf, scores).astype(np.float32), rows.astype(np.int64))

    def on_gpus(
        self, *, num_gpus: int | None = None, fp16: bool = True, say: Say = lambda line: None
    ) -> FaissIndex:
        """A copy on GPUs to search with; this index where there are none or they cannot hold it, and a line.

        Args:
            num_gpus: several hold a share of the rows each; None: all that faiss sees.
            fp16: float16 vectors and tables there.
            say: gets that line.

        Raises:
            InputError: more GPUs than faiss sees, or the search looks into more lists than a GPU takes.
        """
        faiss = load_faiss("the index")
        gpus = faiss_gpu.count_gpus(faiss, wanted=num_gpus, say=say)
        if not gpus:
            return self
        knob = self.knob
        if knob is not None and knob.name == "nprobe":
            faiss_gpu.check_limits(1, knob.value)
        placed = faiss_gpu.to_gpus(faiss, self._index, num_gpus=gpus, fp16=fp16, say=say)
        return self if placed is self._index else FaissIndex(placed, on_gpu=True)

    def save(self, path: Path) -> None:
        """Writes faiss's own format, with the knob as it is set: `faiss.read_index` reads it too."""
        assert not self._on_gpu
        load_faiss("the index").write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote, memory-mapped: codes, lists and graphs stay on disk until they are needed.

        Raises:
            InputError: faiss is not installed, or the file is no faiss index.
        """
        faiss = load_faiss(str(path))
        try:
            return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY))
        except RuntimeError as error:
            raise InputError(f"{path}: no readable faiss index: {last_line(error)}") from None


def load_faiss(wanted: str) -> Any:
    """The module. Raises InputError that names what wanted it where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise InputError(
            f"'{wanted}' needs faiss, which is not installed: install retrieval-cl[cpu] or "
            "retrieval-cl[gpu], or set the faiss factory to null for exact search"
        ) from None
    return faiss


def _graph(faiss: Any, index: Any) -> Any:
    """The HNSW inside transforms and refinements; None where there is none."""
    inner = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexPreTransform | faiss.IndexRefine):
        below = inner.index if isinstance(inner, faiss.IndexPreTransform) else inner.base_index
        inner = faiss.downcast_index(below)
    return inner if isinstance(inner, faiss.IndexHNSW) else None


def _search_widely(faiss: Any, index: Any) -> None:
    # Unless told otherwise faiss looks into one list of thousands, and at 16 neighbours. Both are saved.
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf.nprobe = min(ivf.nlist, max(8, ivf.nlist // 16))
    graph = _graph(faiss, index)
    if graph is not None:
        graph.hnsw.efSearch = max(graph.hnsw.efSearch, 128)
