"""Embeddings on disk: a memory-mapped array, found again only under its own fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_folder, read_manifest, write_manifest

KIND = "embeddings"
VECTORS = "vectors.npy"


def hash_texts(texts: Iterable[str]) -> str:
    """SHA-256 of a list of texts, in hex; no two lists of different texts give the same bytes."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def make_key(*parts: str) -> str:
    """One fingerprint of several: of the encoder, of the kind of text, of the texts."""
    return hash_texts(parts)


@contextmanager
def new_embeddings(
    folder: Path, *, num_rows: int, dim: int, fingerprint: str
) -> Iterator[Float32[np.ndarray, "N D"]]:
    """Yields a writable array on disk; the folder gets its name only once the block ends without an error."""
    with new_folder(folder) as part:
        vectors = np.lib.format.open_memmap(
            part / VECTORS, mode="w+", dtype=np.float32, shape=(num_rows, dim)
        )
        yield vectors
        vectors.flush()
        size = (part / VECTORS).stat().st_size
        write_manifest(part, KIND, num_rows=num_rows, dim=dim, fingerprint=fingerprint, bytes=size)


def write_embeddings(folder: Path, vectors: Float32[np.ndarray, "N D"], *, fingerprint: str) -> None:
    """Writes vectors that are at hand, whole or not at all."""
    with new_embeddings(folder, num_rows=len(vectors), dim=vectors.shape[1], fingerprint=fingerprint) as out:
        out[:] = vectors


def read_embeddings(folder: Path, *, fingerprint: str) -> Float32[np.ndarray, "N D"] | None:
    """The stored vectors, memory-mapped and read-only; None where there are none under this fingerprint.

    Raises:
        InputError: the folder is there but it is half written or no embeddings.
    """
    if not folder.exists():
        return None
    manifest = read_manifest(folder, KIND)
    if manifest["fingerprint"] != fingerprint:
        return None
    return map_vectors(folder / VECTORS, num_bytes=manifest["bytes"])


def map_vectors(path: Path, *, num_bytes: int) -> Float32[np.ndarray, "N D"]:
    """Memory-maps an array whose manifest says `num_bytes`. Raises InputError if it is missing or cut."""
    found = path.stat().st_size if path.is_file() else 0
    if found != num_bytes:
        raise InputError(
            f"{path}: {found} bytes, the manifest says {num_bytes}; it is half written or was changed"
        )
    vectors: Float32[np.ndarray, "N D"] = np.load(path, mmap_mode="r")
    return vectors
