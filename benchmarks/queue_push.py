"""The queue's push: what it allocates, and its time beside a queue that is made anew each step.

    python benchmarks/queue_push.py [--repeats 5] [--json FILE]

4096 rows are pushed into a queue of 65,536 x 256. The peer joins the
kept rows and the new ones (`torch.cat`), as a queue written in one line does. Allocations are torch's own
count of bytes (profiler, `profile_memory`); memory that is freed again within the push counts too.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Sequence

import torch
from side_by_side import Goal, compare_amounts, machine, parse, report, time_in_turn
from torch.profiler import ProfilerActivity, profile

from retrieval_cl.core.queue import Queue


def main(arguments: Sequence[str] | None = None) -> None:
    """Times and counts, prints one table."""
    given = parse(ArgumentParser(description=__doc__.splitlines()[0]), arguments)
    size, dim, pushed = (64, 8, 16) if given.quick else (65_536, 256, 4096)
    ours, peer = pushes(size, dim, pushed), joined(size, dim, pushed)
    timings = time_in_turn({"ours": ours, "peer": peer}, repeats=given.repeats)
    print(f"{machine()}; {pushed} rows into {size} x {dim}; ratio = ours / peer")
    amounts = (allocated(step, times=size // pushed + 1) for step in (ours, peer))
    lap = compare_amounts(
        "pushes of a lap and more, allocated", *amounts, unit="bytes", goal=Goal(0.0, of="ours")
    )
    report([lap, timings.compare("one push, time", "ours", "peer")], given)


def pushes(size: int, dim: int, pushed: int) -> Callable[[], None]:
    """A push into a full queue; now and then it goes over the wrap."""
    queue, vectors, ids = Queue(size, dim), torch.randn(pushed, dim), torch.arange(pushed)
    queue.push(torch.randn(size + pushed // 2, dim), torch.arange(size + pushed // 2))

    def step() -> None:
        queue.push(vectors, ids)

    return step


def joined(size: int, dim: int, pushed: int) -> Callable[[], None]:
    """The kept rows and the new ones, joined into new tensors."""
    vectors, ids = torch.randn(pushed, dim), torch.arange(pushed)
    held = [torch.randn(size, dim), torch.arange(size)]

    def step() -> None:
        held[:] = torch.cat([held[0][pushed:], vectors]), torch.cat([held[1][pushed:], ids])

    return step


def allocated(step: Callable[[], None], *, times: int) -> float:
    """Bytes torch's allocator handed out while a step ran some times, freed ones included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        for _ in range(times):
            step()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return float(sum(event.nbytes() for event in events if event.nbytes() > 0))


if __name__ == "__main__":
    main()
