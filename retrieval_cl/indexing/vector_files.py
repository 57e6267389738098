"""Vectors that stand in .npy and .safetensors files, memory-mapped; bfloat16 as the bits it is kept in."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import DTypeLike
from torch import Tensor

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing.rows import as_tensor

_DTYPES: dict[str, DTypeLike] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_TAKEN = ("<f8", "<f4", "<f2", "<u2", "V2")
_LONGEST_HEADER = 100_000_000
_NPY = b"\x93NUMPY"


@final
@dataclass(frozen=True)
class _Entry:
    """A tensor inside a .safetensors file; offsets in bytes, behind the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def map_file(path: Path, *, tensor: str | None = None) -> Float[Tensor, "N D"]:
    """The vectors of a file, memory-mapped: nothing is read before it is used. Not to be written to.

    numpy knows no bfloat16: a .npy file of uint16 (or of two raw bytes a number) is taken for its bits.

    Args:
        path: .npy or .safetensors.
        tensor: name inside a .safetensors file; None where there is one matrix only.

    Raises:
        InputError: no such file, another ending, no matrix of floats, or a file that was cut.
    """
    if path.suffix not in _READERS:
        raise InputError(f"{path}: vectors are mapped from {' and '.join(_READERS)} files")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    array = _READERS[path.suffix](path, tensor)
    if array.ndim != 2 or array.dtype not in _TAKEN:
        raise InputError(
            f"{path}: {array.dtype} of shape {array.shape}; expected a matrix of floats of 16, 32 or 64 "
            "bits, lowest byte first, or of uint16 that hold the bits of bfloat16"
        )
    return from_stored(array)


def nameless_map(shape: tuple[int, int], *, folder: Path | None = None) -> Float32[np.ndarray, "N D"]:
    """A new array on disk that no one else sees and that goes with its last use.

    Args:
        shape: rows and numbers a row.
        folder: on whose disk; None: where temporary files lie.
    """
    # What is mapped stays while it is mapped, without a name.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".mapped-") as place:
        out: Float32[np.ndarray, "N D"] = np.lib.format.open_memmap(
            Path(place) / "vectors.npy", mode="w+", dtype=np.float32, shape=shape
        )
    return out


def from_stored(array: np.ndarray) -> Float[Tensor, "N D"]:
    """A tensor over the array's memory; uint16 are the bits of bfloat16."""
    if array.dtype.kind == "f":
        return as_tensor(array)
    return as_tensor(array.view(np.uint16)).view(torch.bfloat16)


def to_stored(vectors: Float[Tensor, "N D"]) -> np.ndarray:
    """An array over the tensor's memory as it is kept on disk: bfloat16 becomes uint16."""
    if vectors.dtype == torch.bfloat16:
        return vectors.view(torch.uint16).numpy()
    return vectors.numpy()


def _map_npy(path: Path, tensor: str | None) -> np.ndarray:
    if tensor is not None:
        raise InputError(f"{path}: a .npy file holds one array without a name; leave '{tensor}' out")
    with path.open("rb") as stream:
        if stream.read(len(_NPY)) != _NPY:
            raise InputError(f"{path}: no .npy file, it does not begin as one")
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: no whole .npy file: {error}") from None
    return array


def _map_safetensors(path: Path, tensor: str | None) -> np.ndarray:
    start, entries = _read_header(path)
    names = [name for name, entry in entries.items() if len(entry.shape) == 2]
    if tensor is None and len(names) != 1:
        raise InputError(
            f"{path}: holds {len(names)} matrices ({', '.join(names)}); name one, or keep one in the file"
        )
    entry = entries.get(names[0] if tensor is None else tensor)
    if entry is None:
        raise InputError(f"{path}: no tensor '{tensor}'; it holds {', '.join(entries)}")
    if entry.dtype not in _DTYPES:
        raise InputError(f"{path}: numbers of type {entry.dtype}; expected {', '.join(_DTYPES)}")
    dtype = np.dtype(_DTYPES[entry.dtype])
    if entry.begin < 0 or entry.end - entry.begin != math.prod(entry.shape) * dtype.itemsize:
        raise InputError(
            f"{path}: its header gives {entry.end - entry.begin} bytes to {entry.dtype} of shape "
            f"{entry.shape}; it is broken"
        )
    if start + entry.end > path.stat().st_size:
        raise InputError(
            f"{path}: {path.stat().st_size} bytes, its header says {start + entry.end}; it was cut"
        )
    if entry.begin == entry.end:
        return np.empty(entry.shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start + entry.begin, shape=entry.shape)


def _read_header(path: Path) -> tuple[int, dict[str, _Entry]]:
    """Where the numbers begin, and what the file holds by name. 8 bytes of length, JSON, then the numbers."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            if length > _LONGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            return 8 + length, _entries(stream.read(length))
        except ValueError as error:
            raise InputError(f"{path}: no .safetensors file: {error}") from None


def _entries(header: bytes) -> dict[str, _Entry]:
    found = json.loads(header)
    try:
        return {
            name: _Entry(str(one["dtype"]), tuple(map(int, one["shape"])), *map(int, one["data_offsets"]))
            for name, one in found.items()
            if name != "__metadata__"
        }
    except (AttributeError, KeyError, TypeError):
        raise ValueError("its header names no tensors with dtype, shape and data_offsets") from None


_READERS: dict[str, Callable[[Path, str | None], np.ndarray]] = {
    ".npy": _map_npy,
    ".safetensors": _map_safetensors,
}
