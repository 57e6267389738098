"""Embeds texts and writes their vectors with their ids: .npy, .safetensors or .parquet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_file, write_json
from retrieval_cl.encoders.load import load_encoder
from retrieval_cl.indexing.fill import Filled
from retrieval_cl.indexing.shards import Dtype, Store
from retrieval_cl.runs.machine import on_device
from retrieval_cl.runs.models import Model, require_texts
from retrieval_cl.runs.stored import store_texts
from retrieval_cl.sources.records import Texts

Progress = Callable[[int, int], None]


def embed_texts(
    model: Model,
    texts: Texts,
    *,
    kind: Literal["query", "passage"],
    progress: Progress | None = None,
) -> Float32[np.ndarray, "N D"]:
    """Unit rows of the texts, title and text joined as in an index.

    Raises:
        InputError: the model is missing, broken, or none of texts.
    """
    require_texts(model)
    return on_device(load_encoder(model.path)).encode(texts.full(), kind=kind, progress=progress)


def embed_into_store(
    folder: Path,
    model: Model,
    texts: Texts,
    *,
    kind: Literal["query", "passage"],
    dtype: Dtype = "float16",
    progress: Progress | None = None,
) -> tuple[Store, Filled]:
    """Keeps the vectors of the texts in a store of shards: for long runs, and for corpora that change.

    What stands there under the same model is not encoded again. The ids go to `<folder>.ids.json`.

    Raises:
        InputError: the model is missing, broken or none of texts, or the folder holds something else.
    """
    require_texts(model)
    encoder = on_device(load_encoder(model.path))
    found = store_texts(folder, texts.full(), encoder=encoder, kind=kind, dtype=dtype, progress=progress)
    write_json(folder.with_name(f"{folder.name}.ids.json"), texts.ids)
    return found


def check_suffix(path: Path) -> None:
    """Raises InputError where vectors cannot be written to such a file: better before than after encoding."""
    if path.suffix not in WRITERS:
        raise InputError(f"{path}: cannot write '{path.suffix}'; the endings are {', '.join(WRITERS)}")


def write_vectors(path: Path, vectors: Float32[np.ndarray, "N D"], *, ids: list[str]) -> None:
    """Writes the vectors by the file's ending, whole or not at all.

    `.parquet` holds the columns id and vector; beside `.npy` and `.safetensors` (tensor `vectors`) the ids go
    to `<name>.ids.json`, in the order of the rows.
    """
    check_suffix(path)
    WRITERS[path.suffix](path, vectors, ids)


def _write_npy(path: Path, vectors: Float32[np.ndarray, "N D"], ids: list[str]) -> None:
    # Ids first: where the vectors stand, their ids do.
    write_json(path.with_suffix(".ids.json"), ids)
    with new_file(path) as part, part.open("wb") as stream:
        np.save(stream, vectors, allow_pickle=False)


def _write_safetensors(path: Path, vectors: Float32[np.ndarray, "N D"], ids: list[str]) -> None:
    from safetensors.numpy import save

    write_json(path.with_suffix(".ids.json"), ids)
    with new_file(path) as part:
        part.write_bytes(save({"vectors": vectors}))


def _write_parquet(path: Path, vectors: Float32[np.ndarray, "N D"], ids: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    with new_file(path) as part:
        pq.write_table(pa.table({"id": pa.array(ids, pa.string()), "vector": rows}), part)


WRITERS: dict[str, Callable[[Path, Float32[np.ndarray, "N D"], list[str]], None]] = {
    ".npy": _write_npy,
    ".safetensors": _write_safetensors,
    ".parquet": _write_parquet,
}
