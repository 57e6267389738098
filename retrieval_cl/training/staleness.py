"""How far the weights have moved on from those that mined: the overlap of two searches of one probe set."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from jaxtyping import Int64


def overlap(former: Int64[np.ndarray, "P k"], now: Int64[np.ndarray, "P k"]) -> float:
    """The share of the former hits that are among those of now, over all queries; 1.0 where there are none.

    Args:
        former: rows of each query's hits under the weights that mined; -1 does not count.
        now: those under the current weights, in any order.
    """
    there = former >= 0
    if not there.any():
        return 1.0
    # Sorted by (query, row), both lists are compared in one pass whatever k is.
    width = int(max(former.max(), now.max(initial=0))) + 1
    lines = np.arange(len(former), dtype=np.int64)[:, None] * width
    found = np.isin((lines + former)[there], (lines + now)[now >= 0])
    return float(np.count_nonzero(found) / np.count_nonzero(there))


def pack_rows(rows: Int64[np.ndarray, "P k"]) -> dict[str, Any]:
    """The rows as JSON values: a checkpoint holds them on one line of its manifest."""
    data = zlib.compress(np.ascontiguousarray(rows, dtype="<i8").tobytes())
    return {"shape": list(rows.shape), "int64_zlib_base64": base64.b64encode(data).decode("ascii")}


def unpack_rows(packed: dict[str, Any]) -> Int64[np.ndarray, "P k"]:
    """What `pack_rows` was given."""
    data = zlib.decompress(base64.b64decode(packed["int64_zlib_base64"]))
    return np.frombuffer(data, dtype="<i8").astype(np.int64).reshape(packed["shape"])
