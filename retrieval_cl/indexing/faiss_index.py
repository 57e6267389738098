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
    """A trained index over all passages; row numbers are its ids. May have a copy on GPUs that searches."""

    def __init__(self, index: Any, *, copy: Any | None = None) -> None:
        self._index = index
        self._copy = copy

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
            num_gpus: that train the lists and sort rows into them; None: all that faiss sees. The index
                itself is filled on the CPU; `on_gpus` copies it.
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
        gpus = faiss_gpu.count_gpus(faiss, wanted=num_gpus, say=say)
        try:
            index = faiss.index_factory(rows.dim, factory, faiss.METRIC_INNER_PRODUCT)
            faiss_build.seed(faiss, index, seed=seed)
            if not index.is_trained:
                sample = faiss_build.sample(
                    faiss, index, rows, seed=seed, memory_bytes=memory_bytes, what=what
                )
                faiss_build.train(faiss, index, sample, gpus=gpus, say=say)
                del sample
            faiss_build.add(faiss, index, rows, memory_bytes=memory_bytes, gpus=gpus, what=what, say=say)
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
            most = int(ivf.nlist) if self._copy is None else min(int(ivf.nlist), faiss_gpu.MOST_HITS)
            return Knob("nprobe", int(ivf.nprobe), most)
        graph = _graph(faiss, self._index)
        if graph is None:
            return None
        return Knob("efSearch", int(graph.hnsw.efSearch), max(1, min(_MOST_EF, len(self))))

    @property
    def most_hits(self) -> int:
        """Hits a query that a search can give."""
        return len(self) if self._copy is None else min(len(self), faiss_gpu.MOST_HITS)

    def turn(self, value: int) -> None:
        """Sets the knob; an index without one takes nothing."""
        faiss = load_faiss("the index")
        ivf = faiss.try_extract_index_ivf(self._index)
        if ivf is not None:
            ivf.nprobe = value
            if self._copy is not None:
                faiss.GpuParameterSpace().set_index_parameter(self._copy, "nprobe", value)
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
        if self._copy is not None:
            faiss_gpu.check_limits(k, None)
        index = self._index if self._copy is None else self._copy
        try:
            scores, rows = index.search(np.ascontiguousarray(queries), k)
        except RuntimeError as error:
            raise InputError(f"faiss refuses a search for k = {k}: {last_line(error)}") from None
        return Hits(np.where(rows < 0, -np.inf, scores).astype(np.float32), rows.astype(np.int64))

    def on_gpus(
        self,
        *,
        num_gpus: int | None = None,
        fp16: bool = True,
        at_most: bool = False,
        say: Say = lambda line: None,
    ) -> FaissIndex:
        """This index with a copy on GPUs that searches; itself where there are none or they cannot hold it.

        Args:
            num_gpus: several hold a share of the rows each; None: all that faiss sees; 0: none.
            fp16: float16 vectors and tables there.
            at_most: take fewer where faiss sees fewer: the index may have been made on another machine.
            say: gets a line where GPUs are there and the index stays on the CPU.

        Raises:
            InputError: more GPUs than faiss sees, or the search looks into more lists than a GPU takes.
        """
        faiss = load_faiss("the index")
        if num_gpus is not None and at_most:
            num_gpus = min(num_gpus, int(faiss.get_num_gpus()))
        gpus = faiss_gpu.count_gpus(faiss, wanted=num_gpus, say=say)
        if not gpus:
            return self
        knob = self.knob
        if knob is not None and knob.name == "nprobe":
            faiss_gpu.check_limits(1, knob.value)
        copy = faiss_gpu.to_gpus(faiss, self._index, num_gpus=gpus, fp16=fp16, say=say)
        return self if copy is self._index else FaissIndex(self._index, copy=copy)

    def save(self, path: Path) -> None:
        """Writes faiss's own format, with the knob as it is set: `faiss.read_index` reads it too."""
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


def check_factory(
    factory: str,
    *,
    key: str,
    num_rows: int,
    dim: int,
    memory_bytes: int | None = None,
    target_recall: float | None = None,
) -> None:
    """Refuses what `FaissIndex.build` would refuse of a factory string, before there are vectors.

    Args:
        factory: what `faiss.index_factory` takes, or 'auto'.
        key: of the settings, for messages.
        num_rows: vectors there will be.
        dim: numbers a vector.
        memory_bytes: bound of the build that 'auto' has to keep to; None: none.
        target_recall: that 'auto' has to reach; None: none.

    Raises:
        InputError: faiss is not installed, does not know the string for such vectors, it has more lists
            than there will be rows, or 'auto' knows none that does.
    """
    faiss = load_faiss(factory)
    if factory == "auto":
        choose(num_rows, dim, memory_bytes=memory_bytes, target_recall=target_recall)
        return
    what = f"{key} '{factory}' for {num_rows:,} vectors of dim {dim}"
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InputError(
            f"{what}: FAISS refuses it ({last_line(error)}); valid are its factory strings, such as "
            "'Flat', 'HNSW32', 'IVF256,SQ8', and 'auto'"
        ) from None
    faiss_build.check_lists(faiss, index, num_rows=num_rows, what=what)


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
