"""Which texts count as the same: normalised text, groups of equal rows, and groups merged by a relation."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retrieval_cl.core.relations import Ragged
from retrieval_cl.sources.records import RetrievalData


def passage_groups(data: RetrievalData) -> Int64[np.ndarray, " M"]:
    """Item id of each passage: copies (equal normalised title and text, or `data.equal`) share it."""
    return group_rows(data.passages.full(), equal=data.equal)


def query_groups(data: RetrievalData) -> Int64[np.ndarray, " Q"]:
    """Group of each query: queries with equal normalised text share the row number of the first."""
    return text_groups(data.queries.full())


def group_rows(texts: Sequence[str], *, equal: Ragged | None) -> Int64[np.ndarray, " N"]:
    """Groups rows by equal normalised text or by `equal`, and by any chain of the two.

    Args:
        texts: one text a row.
        equal: row -> rows that are the same item; it need be neither symmetric nor transitive.

    Returns:
        The group of each row: the number of the group's first row.
    """
    groups = text_groups(texts)
    if equal is None:
        return groups
    rows = np.arange(len(texts), dtype=np.int64)
    return merge_rows(np.concatenate([rows, equal.rows]), np.concatenate([groups, equal.values]), len(texts))


def merge_rows(
    left: Int64[np.ndarray, " E"], right: Int64[np.ndarray, " E"], num_rows: int
) -> Int64[np.ndarray, " N"]:
    """Connected components of the edges left[i] - right[i]: the first row of each row's component."""
    edges = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(num_rows, num_rows))
    count, labels = connected_components(edges, directed=False)
    first: Int64[np.ndarray, " G"] = np.empty(count, dtype=np.int64)
    # With repeated indices the last assignment stays: written backwards, that is the smallest row.
    first[labels[::-1]] = np.arange(num_rows - 1, -1, -1, dtype=np.int64)
    groups: Int64[np.ndarray, " N"] = first[labels]
    return groups


def group_members(groups: Int64[np.ndarray, " N"]) -> Ragged:
    """Row -> all rows of its group, itself included, ascending."""
    rows = np.arange(len(groups), dtype=np.int64)
    return Ragged.from_pairs(groups, rows, len(groups)).take(groups)


def text_groups(texts: Sequence[str]) -> Int64[np.ndarray, " N"]:
    """Rows with equal normalised text share a group: the number of the first such row."""
    first: dict[bytes, int] = {}
    # Digests, not the texts themselves: the table stays small for a corpus of millions.
    groups = (first.setdefault(_digest(normalise_text(text)), row) for row, text in enumerate(texts))
    return np.fromiter(groups, dtype=np.int64, count=len(texts))


def normalise_text(text: str) -> str:
    """Unicode compatibility form (NFKC), case folded; each run of white space one blank, none at the ends."""
    if text.isascii():
        return " ".join(text.lower().split())
    # Case folding can undo the normal form (Unicode standard, section 3.13): normalise again after it.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf8"), digest_size=16).digest()
