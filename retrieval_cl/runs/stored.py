"""Vectors of texts kept on disk under all that decides them: encoded once, and again only what changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from retrieval_cl.encoders.text import Kind, TextEncoder
from retrieval_cl.indexing.fill import Filled, Progress, encode_into_store
from retrieval_cl.indexing.shards import SHARD_ROWS, Dtype, Recipe, Store
from retrieval_cl.indexing.store import make_key

_CPU = torch.device("cpu")


def store_texts(
    folder: Path,
    texts: Sequence[str],
    *,
    encoder: TextEncoder,
    kind: Kind,
    dtype: Dtype = "float16",
    compute_dtype: torch.dtype | None = None,
    shard_rows: int = SHARD_ROWS,
    device: torch.device = _CPU,
    progress: Progress | None = None,
) -> tuple[Store, Filled]:
    """Brings the store in a folder up to date with texts and an encoder; see `encode_into_store`.

    Args:
        folder: of the store.
        texts: in row order.
        encoder: with other weights, tokenizer, prompt or lengths every row is encoded anew.
        kind: which prompt and tower.
        dtype: of the stored numbers.
        compute_dtype: see `TextEncoder.encode`.
        shard_rows: rows that a kill can lose.
        device: where ranks talk to each other.
        progress: called with rows done and rows in all, of this rank, after each shard.
    """
    recipe = make_recipe(encoder, kind=kind, dtype=dtype, compute_dtype=compute_dtype, shard_rows=shard_rows)
    return encode_into_store(
        folder,
        texts,
        encode=lambda some: encoder.encode(some, kind=kind, compute_dtype=compute_dtype),
        recipe=recipe,
        device=device,
        progress=progress,
    )


def make_recipe(
    encoder: TextEncoder,
    *,
    kind: Kind,
    dtype: Dtype = "float16",
    compute_dtype: torch.dtype | None = None,
    shard_rows: int = SHARD_ROWS,
) -> Recipe:
    """What decides the vectors of texts under an encoder."""
    key = make_key(encoder.fingerprint(), kind, str(compute_dtype))
    return Recipe(key, encoder.dim, dtype, shard_rows)
