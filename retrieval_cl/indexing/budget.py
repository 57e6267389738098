"""The memory budget of exact search: read from words, and divided among shard, tile, hits and scoring."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing.shortlist import BLOCK

DEFAULT_MEMORY = 512 * 2**20
SMALLEST_MEMORY = 32 * 2**20

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{letter}i": 2 ** (10 * power) for power, letter in enumerate("kmgt", start=1)}
# Of a shard's row while one query is widened over all of it: products, bounds, columns, packed scores.
_WIDENED_BYTES = 64
_HIT_BYTES = 12
_KEY_BYTES = 8
# Scratch that libraries take on first use; and one part in four that malloc keeps: blocks of many sizes that
# come and go leave holes.
_FIRST_USE = 16 * 2**20
_KEPT_BY_MALLOC = 4
_MOST_TILE_ROWS = {"cpu": 256, "cuda": 1024}
# A scoring chunk that leaves a core's second-level cache costs twice the time.
CHUNK_BYTES = {"cpu": 3 * 2**19, "cuda": 2**26}


@dataclass(frozen=True)
class Plan:
    """How a search is cut so that it stays within its budget.

    Attributes:
        wave_rows: queries whose packed hits are held at a time; the passages are read once a wave.
        shard_rows: passages searched at a time.
        tile_rows: queries multiplied with a shard at a time.
        chunk_bytes: what is scored at a time.
        keeps_hits: whether the result itself fits; else it belongs on disk.
    """

    wave_rows: int
    shard_rows: int
    tile_rows: int
    chunk_bytes: int
    keeps_hits: bool


@dataclass(frozen=True)
class Work:
    """What decides a plan beside the memory.

    Attributes:
        num_queries: rows.
        num_passages: rows.
        dim: numbers a row.
        k: hits a query.
        first_pass: bytes of a number in the first pass.
        copied: bytes of a passage's numbers as they are copied beside it; 0 where they are only mapped.
        product: bytes of a product of the first pass; 0 where none is kept but the largest of each block.
    """

    num_queries: int
    num_passages: int
    dim: int
    k: int
    first_pass: int
    copied: int
    product: int


def parse_memory(text: str) -> int:
    """Bytes of a size in words: '2GiB', '512 MB', '1.5g', '1048576'. KiB is 1024, kB (or k) is 1000.

    Raises:
        InputError: the text is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if found is None:
        raise InputError(f"memory '{text}' is no size; expected a number and a unit, as 2GiB, 800MB or 65536")
    return int(float(found[1]) * _UNITS[found[2] or ""])


def make_plan(work: Work, *, memory_bytes: int, device: torch.device, device_bytes: int) -> Plan:
    """Cuts a search.

    Of the memory less what libraries keep, where it is computed, three eighths hold the shard, a quarter the
    tile of queries, a sixteenth the scoring chunk; on the host a sixteenth holds packed hits, a quarter the
    result.

    Raises:
        InputError: even one query of one block of passages does not fit: k is too large for the memory.
    """
    given = min(memory_bytes, device_bytes) if device.type == "cuda" else memory_bytes
    host = (memory_bytes - _FIRST_USE) // _KEPT_BY_MALLOC * (_KEPT_BY_MALLOC - 1)
    place = device_bytes if device.type == "cuda" else host
    row_bytes = max(1, work.dim * (work.first_pass + work.copied))
    most = min(place * 3 // 8 // row_bytes, place // 4 // _WIDENED_BYTES)
    shard_rows = _share(work.num_passages, most, multiple=BLOCK)
    while _tile_row_bytes(work, shard_rows) > place // 4 and shard_rows > BLOCK:
        shard_rows = max(BLOCK, shard_rows // 2 // BLOCK * BLOCK)
    most_tile = _MOST_TILE_ROWS.get(device.type, _MOST_TILE_ROWS["cpu"])
    tile_rows = min(most_tile, place // 4 // _tile_row_bytes(work, shard_rows))
    wave_rows = host // 16 // (_KEY_BYTES * work.k)
    if not tile_rows or not wave_rows:
        least = max(4 * _tile_row_bytes(work, shard_rows), 16 * _KEY_BYTES * work.k)
        least = _FIRST_USE + (least // (_KEPT_BY_MALLOC - 1) + 1) * _KEPT_BY_MALLOC
        raise InputError(
            f"k is {work.k}: so many hits a query need a memory of {least} bytes, given are {given}; "
            "take a smaller k or more memory"
        )
    return Plan(
        wave_rows=_share(work.num_queries, wave_rows, multiple=1),
        shard_rows=shard_rows,
        tile_rows=_share(work.num_queries, tile_rows, multiple=1),
        chunk_bytes=min(CHUNK_BYTES.get(device.type, CHUNK_BYTES["cpu"]), place // 16),
        keeps_hits=_HIT_BYTES * work.k * work.num_queries <= host // 4,
    )


def shortlist_length(k: int) -> int:
    """Candidates of the first pass that are scored, for k hits."""
    return k + max(32, k // 2)


def _tile_row_bytes(work: Work, shard_rows: int) -> int:
    """Of one query of a tile.

    Products (and their float32 copy where no block is skipped), block maxima, the columns looked into with
    index and value, the packed hits of both sides while they are merged.
    """
    length = min(shortlist_length(work.k), shard_rows)
    blocks = shard_rows // BLOCK
    whole = 2 * length >= blocks
    searched = min(BLOCK * length, shard_rows)
    products = shard_rows * (work.product + (4 if whole else 0)) + blocks * 20
    return products + searched * (12 + (work.product or 4)) + 80 * (length + work.k) + 12 * work.dim


def _share(total: int, most: int, *, multiple: int) -> int:
    """Rows a part so that parts are about equal and none exceeds `most`: a small last part is waste."""
    parts = -(-total // max(multiple, most // multiple * multiple))
    return max(1, -(-total // max(1, parts) // multiple)) * multiple
