"""Vectors with their ids from .npy, .safetensors and Parquet files, as unit rows; pairs of ids as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import read_json
from retrieval_cl.core.relations import Ragged
from retrieval_cl.indexing.shards import open_store
from retrieval_cl.indexing.vector_files import map_file, nameless_map
from retrieval_cl.sources.checks import id_at
from retrieval_cl.sources.lines import read_jsonl, read_lines
from retrieval_cl.sources.qrels import read_id_pairs, read_qrels
from retrieval_cl.sources.tables import table_suffix

_BLOCK = 1 << 14
# Rows this near to length 1 are unit rows; their bits stay as they are.
_UNIT = 1e-4
_MAPPED = (".npy", ".safetensors")


@final
@dataclass(frozen=True, eq=False)
class Stored:
    """Vectors and what they are vectors of.

    Attributes:
        vectors: unit rows; a memory map where they are large.
        ids: of the rows, distinct.
        scaled: whether the rows in the file were of another length.
    """

    vectors: Float32[np.ndarray, "N D"]
    ids: list[str]
    scaled: bool

    def rows(self) -> dict[str, int]:
        """Id -> row."""
        return {name: row for row, name in enumerate(self.ids)}


def read_stored(path: Path, *, what: str) -> Stored:
    """Reads a file of vectors and the ids of its rows.

    A .parquet file has the columns id and vector; the ids of x.npy or x.safetensors lie in x.ids.json, a
    list, those of a store x in x.ids.json too, as `retrieval-cl embed` writes them all. What is no float32
    unit row is written as one to a nameless temporary file.

    Args:
        path: the file, or the folder of a store.
        what: "query" or "passage", for messages.

    Raises:
        InputError: a file is missing or broken; ids are missing, empty, doubled or -1; or a row is zero or
            not finite (its row and id are named).
    """
    if path.suffix == ".parquet":
        blocks, ids, shape = _open_parquet(path)
        _check_ids(ids, path=path, num_rows=shape[0], what=what)
        return Stored(_unit_rows(blocks, shape, ids=ids, path=path, what=what), ids, scaled=True)
    if path.is_dir():
        return _read_store(path, what=what)
    if path.suffix not in _MAPPED:
        raise InputError(
            f"{path}: vectors are read from {', '.join(_MAPPED)} and .parquet files, and from stores"
        )
    mapped = map_file(path)
    beside = path.with_suffix(".ids.json")
    ids = _ids_beside(path, beside)
    _check_ids(ids, path=beside, num_rows=len(mapped), what=what)
    pieces = (mapped[start : start + _BLOCK] for start in range(0, len(mapped), _BLOCK))
    blocks = (piece.to(torch.float32).numpy() for piece in pieces)
    if mapped.dtype == torch.float32 and _are_unit(mapped.numpy(), ids=ids, path=path, what=what):
        return Stored(mapped.numpy(), ids, scaled=False)
    shape = (int(mapped.shape[0]), int(mapped.shape[1]))
    return Stored(_unit_rows(blocks, shape, ids=ids, path=path, what=what), ids, scaled=True)


def read_positives(path: Path, *, queries: Mapping[str, int], passages: Mapping[str, int]) -> Ragged:
    """Query row -> passage rows known to match, from pairs of ids.

    `.jsonl`: `{"query": id, "positive": id}`, or a list of ids under `positives`. Any other file is text:
    `query<tab>passage`, or judgements of 3 or 4 columns, of which grades from 1 on count.

    Raises:
        InputError: the file is missing or broken, an id is unknown (file and line), or there is no pair.
    """
    if table_suffix(path) == ".jsonl":
        rows, values = _pairs_of_jsonl(path, queries=queries, passages=passages)
    elif len(next(iter(read_lines(path)), (0, ""))[1].split("\t")) == 2:
        rows, values = read_id_pairs(path, left=queries, right=passages, kinds=("query", "passage"))
    else:
        return read_qrels(path, queries=queries, passages=passages).relevant(len(queries))
    if not len(rows):
        raise InputError(f"{path}: no pair of a query and a passage")
    return Ragged.from_pairs(rows, values, len(queries))


def _pairs_of_jsonl(
    path: Path, *, queries: Mapping[str, int], passages: Mapping[str, int]
) -> tuple[Int64[np.ndarray, " E"], Int64[np.ndarray, " E"]]:
    records, pairs = read_jsonl(path), []
    for row in range(len(records)):
        query = id_at(records, row, ("query", "query_id"))
        several = records.rows[row].get("positives")
        names = (
            [_id(one) for one in several]
            if isinstance(several, list)
            else [id_at(records, row, ("positive", "passage", "passage_id"))]
        )
        for kind, name, known in (("query", query, queries), *(("passage", one, passages) for one in names)):
            if name not in known:
                raise InputError(f"{records.place(row)}: unknown {kind} id '{name}'")
        pairs += [(queries[query], passages[name]) for name in names]
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _read_store(path: Path, *, what: str) -> Stored:
    store = open_store(path)
    assert store is not None, "the folder is there"
    beside = path.with_name(f"{path.name}.ids.json")
    ids = _ids_beside(path, beside)
    _check_ids(ids, path=beside, num_rows=len(store), what=what)
    pieces = (piece for shard in store.shards for piece in shard.split(_BLOCK))
    blocks = (piece.to(torch.float32).numpy() for piece in pieces)
    shape = (len(store), store.recipe.dim)
    return Stored(_unit_rows(blocks, shape, ids=ids, path=path, what=what), ids, scaled=True)


def _ids_beside(path: Path, beside: Path) -> list[str]:
    if not beside.is_file():
        raise InputError(
            f"{beside}: no such file; expected the ids of the rows of {path.name}, a JSON list, "
            "as `retrieval-cl embed` writes it"
        )
    ids = read_json(beside)
    if not isinstance(ids, list):
        raise InputError(f"{beside}: expected a JSON list of ids, got {type(ids).__name__}")
    return [_id(one) for one in ids]


def _id(value: Any) -> str:
    # Whole numbers are ids as well; anything else becomes an id that `_check_ids` refuses.
    return str(value) if type(value) in (str, int) else ""


def _check_ids(ids: list[str], *, path: Path, num_rows: int, what: str) -> None:
    if len(ids) != num_rows:
        raise InputError(f"{path}: {len(ids)} {what} ids for {num_rows} rows; each row needs one")
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if not name.strip() or name == "-1":
            said = "-1, which means: none" if name == "-1" else "empty, or neither text nor a whole number"
            raise InputError(
                f"{path}: the {what} id of row {row} is {said}; every row needs an id of its own"
            )
        if name in first:
            raise InputError(f"{path}: {what} id '{name}' stands twice, in rows {first[name]} and {row}")
        first[name] = row


def _open_parquet(path: Path) -> tuple[Iterator[Float[np.ndarray, "B D"]], list[str], tuple[int, int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: no readable Parquet file: {str(error).splitlines()[0]}") from None
    if missing := [name for name in ("id", "vector") if name not in names]:
        raise InputError(f"{path}: no column '{missing[0]}'; columns are {', '.join(names) or 'none'}")
    _check_lists(file.schema_arrow.field("vector").type, path=path)
    ids = [_id(one) for one in file.read(columns=["id"])["id"].to_pylist()]
    first = next(file.iter_batches(batch_size=1, columns=["vector"]), None)
    if first is None:
        raise InputError(f"{path}: no rows")
    dim = len(first["vector"][0].as_py() or ())
    if not dim:
        raise InputError(f"{path}: the vector of row 0 is missing or has no numbers")

    def blocks() -> Iterator[Float[np.ndarray, "B D"]]:
        start = 0
        for batch in file.iter_batches(batch_size=_BLOCK, columns=["vector"]):
            vectors = batch["vector"]
            lengths = vectors.value_lengths().to_numpy(zero_copy_only=False)
            missing = vectors.is_null().to_numpy(zero_copy_only=False)
            if len(bad := np.flatnonzero(missing | (lengths != dim))):
                raise InputError(
                    f"{path}: the vector of row {start + bad[0]} has not the {dim} numbers of the first"
                )
            yield vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
            start += len(vectors)

    return blocks(), ids, (file.metadata.num_rows, dim)


def _check_lists(kind: Any, *, path: Path) -> None:
    import pyarrow.types as types

    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not is_list or not (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)):
        raise InputError(f"{path}: column 'vector' holds {kind}; expected lists of numbers")


def _are_unit(vectors: Float32[np.ndarray, "N D"], *, ids: list[str], path: Path, what: str) -> bool:
    unit = True
    for start in range(0, len(vectors), _BLOCK):
        lengths = _lengths(vectors[start : start + _BLOCK], start, ids=ids, path=path, what=what)
        unit &= bool((np.abs(lengths - 1) < _UNIT).all())
    return unit


def _unit_rows(
    blocks: Iterator[Float[np.ndarray, "B D"]],
    shape: tuple[int, int],
    *,
    ids: list[str],
    path: Path,
    what: str,
) -> Float32[np.ndarray, "N D"]:
    out, start = nameless_map(shape), 0
    for block in blocks:
        lengths = _lengths(block, start, ids=ids, path=path, what=what)
        out[start : start + len(block)] = block / lengths[:, None]
        start += len(block)
    return out


def _lengths(
    block: Float[np.ndarray, "B D"], start: int, *, ids: list[str], path: Path, what: str
) -> Float[np.ndarray, " B"]:
    lengths: Float[np.ndarray, " B"] = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
    if len(bad := np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))):
        row = start + int(bad[0])
        said = "is zero" if lengths[bad[0]] == 0 else "holds NaN or infinity"
        raise InputError(
            f"{path}: {what} row {row} (id '{ids[row]}') {said}; every row must have a direction"
        )
    return lengths
