"""What the GPU sections share: memory of a step, the largest size that fits, which engine compares."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

import torch
from contestants import Size
from side_by_side import MIB, Step

from retrieval_cl.core import tiles
from retrieval_cl.core.engine import Demand, Engine
from retrieval_cl.core.engines import choose_engine
from retrieval_cl.core.kernels import available

T = TypeVar("T")


def extra_mib(step: Step, *, gradient_bytes: int) -> float:
    """Memory of a step beyond its inputs and gradients, in MiB, as torch's allocator counts it.

    The second run is measured, since the first compiles kernels; what libraries keep from it counts.

    Args:
        step: its inputs are on the device already.
        gradient_bytes: of what the step must return or leave behind.
    """
    free()
    before = torch.cuda.memory_allocated()
    step()
    free()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before - gradient_bytes) / MIB


def free() -> None:
    """Gives unused memory back, once all work is done."""
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()


def first_that_fits(sizes: Iterator[T], run: Callable[[T], object]) -> T:
    """The first size at which `run` does not run out of memory."""
    for size in sizes:
        try:
            run(size)
            torch.cuda.synchronize()
        except torch.OutOfMemoryError:
            continue
        finally:
            free()
        return size
    raise RuntimeError("out of memory at the smallest size")


def halvings(size: Size, *, smallest: int = 64) -> Iterator[Size]:
    """A size and its halves, down to so many anchors."""
    while size.anchors >= smallest:
        yield size
        size = Size(size.anchors // 2, size.columns // 2, size.dim)


@contextmanager
def engine_of(engine: type[Engine]) -> Iterator[None]:
    """Comparisons run on this engine, whatever the rule would choose."""
    with mock.patch.object(tiles, "choose_engine", lambda demand, device: engine):
        yield


def on_engine(engine: type[Engine], step: Step) -> Step:
    """A step whose comparisons run on this engine."""

    def run() -> Any:
        with engine_of(engine):
            return step()

    return run


def chosen_engines(step: Step) -> set[str]:
    """Names of the engines that a step's comparisons chose."""
    found = set()

    def spy(demand: Demand, device: torch.device) -> type[Engine]:
        engine = choose_engine(demand, device)
        found.add(engine.__name__)
        return engine

    with mock.patch.object(tiles, "choose_engine", spy):
        step()
    return found


def kernel_engines(device: torch.device) -> dict[str, type[Engine]]:
    """The engines that need kernels, by a short name; none where there are no kernels."""
    if not available(device):
        return {}
    from retrieval_cl.core.kernels.engines import FlashEngine, SweepEngine

    return {"flash": FlashEngine, "sweep": SweepEngine}
