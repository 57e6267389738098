"""Ranks end together: where one of them fails, the others hear its line instead of waiting for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import UInt8
from torch import Tensor

from retrieval_cl.core.errors import InputError, RankFailed
from retrieval_cl.core.ranks import any_rank, gather_values, num_ranks

_LINE_BYTES = 1000
_INPUT, _OTHER = 1, 2
_TOLD = "all ranks have heard of it"


@contextmanager
def together(link: torch.device) -> Iterator[None]:
    """All ranks leave this block, or all raise; every rank must enter. In one process it does nothing.

    A rank that fails inside raises its own error, after the others have heard of it at the end of a block:
    of this one, or of one within it. So ranks may exchange something inside only right after the end of an
    inner block, with nothing in between that may fail on one rank alone.

    Args:
        link: where ranks talk to each other: the GPU under nccl.

    Raises:
        InputError: another rank raised one, which says the same.
        RankFailed: another rank failed in any other way.
    """
    if num_ranks() == 1:
        yield
        return
    try:
        yield
    except BaseException as error:
        if _TOLD not in getattr(error, "__notes__", ()):
            _tell(error, link=link)
            error.add_note(_TOLD)
        raise
    if any_rank(False, device=link):
        raise _hear(gather_values(_pack(None).to(link)).cpu())


def _tell(error: BaseException, *, link: torch.device) -> None:
    any_rank(True, device=link)
    gather_values(_pack(error).to(link))


def _hear(lines: UInt8[Tensor, "W B"]) -> InputError | RankFailed:
    """The error of the first rank that has one, for a rank that has none."""
    number = int(lines[:, 0].nonzero()[0])
    line = bytes(lines[number, 1:].tolist()).rstrip(b"\0").decode("utf8", errors="ignore")
    error = InputError(line) if int(lines[number, 0]) == _INPUT else RankFailed(f"rank {number}: {line}")
    error.add_note(_TOLD)
    return error


def _pack(error: BaseException | None) -> UInt8[Tensor, "1 B"]:
    """Its kind and its line, as ranks can exchange them; zeros for none."""
    packed = torch.zeros((1, 1 + _LINE_BYTES), dtype=torch.uint8)
    if error is None:
        return packed
    is_input = isinstance(error, InputError)
    line = str(error) if is_input else f"{type(error).__name__}: {_first_line(error)}"
    content = line.encode("utf8")[:_LINE_BYTES]
    packed[0, 0] = _INPUT if is_input else _OTHER
    packed[0, 1 : 1 + len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return packed


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
