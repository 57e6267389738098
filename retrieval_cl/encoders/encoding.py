"""What encoding images and texts shares: evaluation mode, batches one late, nothing broken let out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.images import Images
from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.packing import pack_rows

Progress = Callable[[int, int], None]
RowsAndVectors = tuple[Int64[np.ndarray, " B"], Float[Tensor, "B D"]]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every part is in the mode it was in."""
    # Module by module: a part frozen in evaluation mode stays so afterwards.
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def computing_in(dtype: torch.dtype | None, *, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to a type; None: that of the weights."""
    # Not casting.forward_in: batch norm keeps its statistics, and with them its weights, in float32.
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def embed_image_batches(
    images: Images,
    *,
    rows: Int64[np.ndarray, " N"],
    batch_size: int,
    device: torch.device,
    embed: Callable[[UInt8[Tensor, "B 3 H W"]], Float[Tensor, "B D"]],
) -> Iterator[RowsAndVectors]:
    """Places in `rows` and vectors of each batch, one late: a GPU computes one while another is copied."""
    return _one_late(_image_batches(images, rows=rows, batch_size=batch_size, device=device, embed=embed))


def embed_text_batches(
    windows: Iterator[tuple[int, Ragged]],
    *,
    embed: Callable[[Ragged], Float[Tensor, "B D"]],
    batch_tokens: int,
) -> Iterator[RowsAndVectors]:
    """Row numbers and vectors of each batch of like lengths, one late.

    Args:
        windows: token ids of many rows, with the number of the first, as `ahead.token_windows` gives them.
        embed: from token ids to vectors.
        batch_tokens: tokens embedded together, padding included.
    """
    return _one_late(_text_batches(windows, embed=embed, batch_tokens=batch_tokens))


def collect(
    batches: Iterator[RowsAndVectors], *, num_rows: int, dim: int, progress: Progress | None
) -> Float32[np.ndarray, "N D"]:
    """The vectors of all batches, each in its row, on the host.

    Args:
        batches: row numbers and vectors, every row once.
        num_rows: in all.
        dim: numbers in a vector.
        progress: called with rows done and rows in all after each batch.
    """
    vectors = np.empty((num_rows, dim), dtype=np.float32)
    done = 0
    for rows, batch in batches:
        vectors[rows] = batch.cpu().numpy()
        done += len(rows)
        if progress is not None:
            progress(done, num_rows)
    return vectors


def refuse_not_finite(
    vectors: Float32[np.ndarray, "N D"], *, what: str, numbers: Int64[np.ndarray, " N"] | None
) -> None:
    """Raises InputError where a row's vector is NaN or infinite; names the first such row.

    Args:
        vectors: one a row.
        what: what the rows are, such as "image".
        numbers: how the error calls the rows; None: from 0 on.
    """
    finite = np.isfinite(vectors.sum(axis=1))
    if finite.all():
        return
    rows = np.flatnonzero(~finite)
    first = rows[0] if numbers is None else numbers[rows[0]]
    raise InputError(
        f"the vector of {what} row {first} is NaN or infinite ({len(rows)} of {len(finite)} rows are): "
        "the model's weights are broken, or its numbers overflow in this compute type"
    )


def _image_batches(
    images: Images,
    *,
    rows: Int64[np.ndarray, " N"],
    batch_size: int,
    device: torch.device,
    embed: Callable[[UInt8[Tensor, "B 3 H W"]], Float[Tensor, "B D"]],
) -> Iterator[RowsAndVectors]:
    for start in range(0, len(rows), batch_size):
        taken = rows[start : start + batch_size]
        vectors = embed(images.take(taken).to(device, non_blocking=True))
        yield np.arange(start, start + len(taken)), vectors


def _text_batches(
    windows: Iterator[tuple[int, Ragged]],
    *,
    embed: Callable[[Ragged], Float[Tensor, "B D"]],
    batch_tokens: int,
) -> Iterator[RowsAndVectors]:
    for first, tokens in windows:
        for rows in pack_rows(tokens.counts, batch_tokens=batch_tokens):
            yield first + rows, embed(tokens.take(rows))


def _one_late(batches: Iterator[RowsAndVectors]) -> Iterator[RowsAndVectors]:
    waiting: RowsAndVectors | None = None
    for batch in batches:
        if waiting is not None:
            yield waiting
        waiting = batch
    if waiting is not None:
        yield waiting
