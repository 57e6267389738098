"""Vectors of an index on disk, memory-mapped; hashes of texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError

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


def map_vectors(path: Path, *, num_bytes: int) -> Float32[np.ndarray, "N D"]:
    """Memory-maps an array whose manifest says `num_bytes`. Raises InputError if it is missing or cut."""
    found = path.stat().st_size if path.is_file() else 0
    if found != num_bytes:
        raise InputError(
            f"{path}: {found} bytes, the manifest says {num_bytes}; it is half written or was changed"
        )
    vectors: Float32[np.ndarray, "N D"] = np.load(path, mmap_mode="r")
    return vectors
