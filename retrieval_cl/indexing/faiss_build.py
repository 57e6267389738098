"""Fills a FAISS index from rows on disk: a sample to train on, then blocks, within a memory budget.

FAISS itself is an argument here: `faiss_index` alone imports it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing import faiss_gpu
from retrieval_cl.indexing.faiss_choice import in_words, need
from retrieval_cl.indexing.faiss_gpu import Say
from retrieval_cl.indexing.rows import Rows

# Rows to train on: 256 a list as faiss takes at most, fewer of very many lists; enough for codes of 8 bits.
_ROWS_A_LIST = 256
_MANY_TRAIN_ROWS = 1_000_000
_LEAST_ROWS_A_LIST = 64
_CODE_TRAIN_ROWS = 65_536
_ADD_ROWS = 65_536
_PROBE_ROWS = 1024
_WRITE_BYTES = 2**20


def seed(faiss: Any, index: Any, *, seed: int) -> None:
    """Sets the seed of k-means."""
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf.cp.seed = seed


def check_lists(faiss: Any, index: Any, *, num_rows: int, what: str) -> int:
    """The lists of an index, 1 where it has none. Raises InputError where they are more than the rows."""
    ivf = faiss.try_extract_index_ivf(index)
    lists = 1 if ivf is None else int(ivf.nlist)
    if lists > num_rows:
        raise InputError(
            f"{what}: {lists} lists need at least {lists} rows to train on (39 a list are good); "
            f"take at most {max(1, num_rows // 39)} lists, or 'Flat', 'HNSW32', 'auto'"
        )
    return lists


def sample(
    faiss: Any, index: Any, rows: Rows, *, seed: int, memory_bytes: int | None, what: str
) -> Float32[np.ndarray, "M D"]:
    """Rows to train on, in order; k-means may copy them once, so that they take a quarter of the memory."""
    lists = check_lists(faiss, index, num_rows=len(rows), what=what)
    most = max(_MANY_TRAIN_ROWS, _LEAST_ROWS_A_LIST * lists)
    count = min(len(rows), max(_CODE_TRAIN_ROWS, min(_ROWS_A_LIST * lists, most)))
    if memory_bytes is not None:
        count = min(count, memory_bytes // 4 // (4 * rows.dim))
        if count < lists:
            raise InputError(
                f"{what}: {lists} rows to train on take {in_words(16 * lists * rows.dim)} of memory with "
                f"what is beside them, it is {in_words(memory_bytes)}; take fewer lists or raise index.memory"
            )
    wanted = np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))
    sample = np.empty((count, rows.dim), dtype=np.float32)
    for start, part in rows.pieces():
        first, last = np.searchsorted(wanted, (start, start + len(part)))
        sample[first:last] = part[torch.from_numpy(wanted[first:last] - start)].to(torch.float32).numpy()
    return sample


def train(faiss: Any, index: Any, sample: Float32[np.ndarray, "M D"], *, gpus: int, say: Say) -> None:
    """Trains; the lists on so many GPUs."""
    ivf = faiss.try_extract_index_ivf(index)
    if not gpus or ivf is None:
        index.train(sample)
        return
    # k-means asks the GPU which centre is nearest; the index itself stays here.
    centres = faiss_gpu.to_gpus(faiss, faiss.IndexFlatIP(ivf.d), num_gpus=gpus, fp16=False, say=say)
    ivf.clustering_index = centres
    index.train(sample)
    ivf.clustering_index = None


def add(
    faiss: Any, index: Any, rows: Rows, *, memory_bytes: int | None, gpus: int, what: str, say: Say
) -> None:
    """Adds all rows; after the first few it is known what a row takes. So many GPUs say into which list."""
    empty, first = _size(faiss, index), min(_PROBE_ROWS, len(rows))
    index.add(_read(rows, 0, first))
    step = _ADD_ROWS
    if memory_bytes is not None:
        needed = need(len(rows), (_size(faiss, index) - empty) / first, fixed=empty)
        if needed > memory_bytes:
            raise InputError(
                f"{what}: building it takes {in_words(needed)}, the memory is {in_words(memory_bytes)}; "
                "raise index.memory, or take smaller codes (SQ8, PQ), or 'auto', which chooses what fits"
            )
        step = max(1, min(step, memory_bytes // 16 // (4 * rows.dim)))
    with faiss_gpu.lists_found_on(faiss, index, num_gpus=gpus, say=say):
        for start in range(first, len(rows), step):
            index.add(_read(rows, start, start + step))


def _read(rows: Rows, start: int, stop: int) -> Float32[np.ndarray, "R D"]:
    part = rows.read(start, stop, device=torch.device("cpu"))
    return np.ascontiguousarray(part.to(torch.float32).numpy())


def _size(faiss: Any, index: Any) -> int:
    """Bytes of the index as it is written; nothing is kept of them."""
    sizes = []

    def count(data: bytes) -> int:
        sizes.append(len(data))
        return len(data)

    faiss.write_index(index, faiss.PyCallbackIOWriter(count, _WRITE_BYTES))
    return sum(sizes)
