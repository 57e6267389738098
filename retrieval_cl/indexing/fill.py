"""Fills an embedding store: encodes what is missing or changed, keeps the rest, goes on after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import write_manifest
from retrieval_cl.core.ranks import num_ranks, rank
from retrieval_cl.core.together import together
from retrieval_cl.indexing.reuse import OldRows, as_one
from retrieval_cl.indexing.shards import (
    STORE,
    Recipe,
    Store,
    is_whole,
    link_shard,
    made_like,
    open_store,
    row_keys,
    shard_folder,
    shard_ranges,
    write_shard,
)

Encode = Callable[[list[str]], Float32[np.ndarray, "N D"]]
Progress = Callable[[int, int], None]
_CPU = torch.device("cpu")


@final
@dataclass
class Filled:
    """What one rank did, in rows: encoded now, copied from the store that stood there, found done before."""

    encoded: int = 0
    copied: int = 0
    kept: int = 0


def encode_into_store(
    folder: Path,
    texts: Sequence[str],
    *,
    encode: Encode,
    recipe: Recipe,
    device: torch.device = _CPU,
    progress: Progress | None = None,
) -> tuple[Store, Filled]:
    """Brings a store up to date with texts: row i embeds text i.

    Only rows whose text is not in the store under the same recipe are encoded, each text of a shard once;
    what is encoded together is a function of the shard and of the store that stood there, never of ranks.
    The new store grows beside the old one in `.<name>.next`, shard by shard, and takes its place when it is
    whole: a kill loses the shard at work, and the next call goes on to the same bytes. All ranks must call
    with the same arguments; each fills its share of the shards and all return when the store stands.

    Args:
        folder: of the store; the disk must be seen by all ranks.
        texts: in row order.
        encode: gives the vectors of some texts.
        recipe: what decides them.
        device: where ranks talk to each other.
        progress: called with rows done and rows in all, of this rank, after each shard.

    Raises:
        InputError: the folder holds something else, or `encode` raises one on any rank.
        RankFailed: another rank failed in any other way.
    """
    old = open_store(folder, recipe=recipe)
    if old is not None and old.recipe == recipe and _holds(old, texts):
        with together(device):
            return old, Filled(kept=len(texts))
    done = Filled()
    work = folder.with_name(f".{folder.name}.next")
    with together(device):
        _fill(work, texts, encode=encode, recipe=recipe, old=OldRows(old), done=done, progress=progress)
    with together(device):
        if rank() == 0:
            _finish(work, folder, num_rows=len(texts), recipe=recipe)
    store = open_store(folder, recipe=recipe)
    assert store is not None
    return store, done


def _fill(
    work: Path,
    texts: Sequence[str],
    *,
    encode: Encode,
    recipe: Recipe,
    old: OldRows,
    done: Filled,
    progress: Progress | None,
) -> None:
    """Makes this rank's shards, in turn."""
    mine = list(enumerate(shard_ranges(len(texts), recipe.shard_rows)))[rank() :: num_ranks()]
    total = sum(len(rows) for _, rows in mine)
    for number, rows in mine:
        part = list(texts[rows.start : rows.stop])
        _fill_shard(work, number, texts=part, encode=encode, recipe=recipe, old=old, done=done)
        if progress is not None:
            progress(done.encoded + done.copied + done.kept, total)


def _fill_shard(
    work: Path, number: int, *, texts: list[str], encode: Encode, recipe: Recipe, old: OldRows, done: Filled
) -> None:
    """Keeps, links, or makes one shard."""
    keys, folder, twin = row_keys(texts), shard_folder(work, number), old.shard(number)
    if is_whole(folder, recipe=recipe, num_rows=len(texts), keys=keys):
        done.kept += len(texts)
    elif twin is not None and is_whole(twin, recipe=recipe, num_rows=len(texts), keys=keys):
        link_shard(twin, folder)
        done.copied += len(texts)
    else:
        rows = old.find(keys)
        known = rows >= 0
        vectors = np.empty((len(texts), recipe.dim), dtype=np.float32)
        if known.any():
            vectors[known] = old.take(rows[known])
        _encode_missing(vectors, texts, keys=keys, missing=~known, encode=encode)
        write_shard(folder, vectors, keys=keys, recipe=recipe)
        done.copied += int(known.sum())
        done.encoded += int((~known).sum())


def _encode_missing(
    vectors: Float32[np.ndarray, "R D"],
    texts: list[str],
    *,
    keys: UInt8[np.ndarray, "R B"],
    missing: Bool[np.ndarray, " R"],
    encode: Encode,
) -> None:
    """Encodes each distinct missing text once and puts its vector into all its rows."""
    rows = np.flatnonzero(missing)
    if not len(rows):
        return
    _, firsts, inverse = np.unique(as_one(keys[rows]), return_index=True, return_inverse=True)
    encoded = encode([texts[row] for row in rows[firsts]])
    if encoded.shape != (len(firsts), vectors.shape[1]):
        raise InputError(f"the encoder gave {encoded.shape}, expected {(len(firsts), vectors.shape[1])}")
    vectors[rows] = encoded[inverse]


def _finish(work: Path, folder: Path, *, num_rows: int, recipe: Recipe) -> None:
    """Removes what is no part of the store, seals it, and puts it into the old one's place."""
    work.mkdir(parents=True, exist_ok=True)
    wanted = {shard_folder(work, each).name for each in range(len(shard_ranges(num_rows, recipe.shard_rows)))}
    for entry in work.iterdir():
        if entry.name not in wanted:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    write_manifest(work, STORE, **made_like(recipe), num_rows=num_rows, shard_rows=recipe.shard_rows)
    _take_place(work, folder)


def _holds(store: Store, texts: Sequence[str]) -> bool:
    ranges = shard_ranges(len(texts), store.recipe.shard_rows)
    return len(store) == len(texts) and all(
        is_whole(
            shard_folder(store.folder, number),
            recipe=store.recipe,
            num_rows=len(rows),
            keys=row_keys(texts[rows.start : rows.stop]),
        )
        for number, rows in enumerate(ranges)
    )


def _take_place(work: Path, folder: Path) -> None:
    # A folder cannot be renamed over a full one. A kill between the two leaves a whole `work`, which the next
    # call finds.
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    work.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
