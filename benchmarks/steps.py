"""The cached step beside the plain one on the CPU: time, memory, and that their gradients agree.

    python benchmarks/steps.py [--pairs 128] [--threads 2] [--repeats 3] [--json FILE]

A BERT of the shape of all-MiniLM-L6-v2 (6 layers of 384, random weights, no dropout) embeds pairs of a query
of up to 24 and a passage of up to 128 tokens in float32. Cached steps differ in the tokens of a chunk, and in
the tokens whose graph is kept from the first pass instead of being made again. Memory is the rise of the
resident memory of a fresh process during one step (see `side_by_side.peak_bytes`) less that of the gradients.
Before that, where a gradient of a small batch in float64 is off by more than 1e-12 of the greatest one, the
script stops.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import torch
from side_by_side import (
    MIB,
    Row,
    compare_amounts,
    in_child,
    machine,
    parse,
    peak_bytes,
    report,
    time_in_turn,
)
from torch import Tensor
from towers import MINILM, TINY, Shape, build_method, difference, draw_batch, gradients, taken

from retrieval_cl.training.steps import TakeStep, cached_step, plain_step

# Tokens of a chunk, and tokens whose graph is kept.
BUDGETS = ((1024, 0), (4096, 0), (8192, 0), (1024, 4096), (1024, 8192))
QUICK_BUDGETS = ((16, 0), (16, 48))
CHECKED_PAIRS, TOLERANCE = 16, 1e-12


def main(arguments: Sequence[str] | None = None) -> None:
    """Times all steps in turn, measures each one's memory, prints one table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=128, help="queries, and passages, of a batch")
    given = parse(parser, arguments)
    shape, pairs = (TINY, 8) if given.quick else (MINILM, given.pairs)
    steps = all_steps(QUICK_BUDGETS if given.quick else BUDGETS)
    refuse_other_gradients(steps, shape)
    rows = time_steps(steps, shape, pairs, repeats=given.repeats)
    found = {name: in_child(extra_mib, step, shape, pairs, given.threads) for name, step in steps.items()}
    rows += [
        compare_amounts(f"memory, {name}", found[name], found["plain"], unit="MiB")
        for name in steps
        if name != "plain"
    ]
    tokens = sum(len(view.inputs.values) for view in draw_batch(shape, pairs).views.values())
    print(f"{machine()}; {pairs} pairs, {tokens} tokens, peer: the plain step; ratio = ours / peer")
    report(rows, given)


def all_steps(budgets: Sequence[tuple[int, int]]) -> dict[str, TakeStep]:
    """The plain step and one cached step a pair of budgets."""
    steps: dict[str, TakeStep] = {"plain": plain_step}
    for chunk, graph in budgets:
        name = f"chunks of {chunk} tokens" + (f", graph of {graph} kept" if graph else "")
        steps[name] = partial(cached_step, chunk_tokens=chunk, graph_tokens=graph)
    return steps


def refuse_other_gradients(steps: dict[str, TakeStep], shape: Shape) -> None:
    """Raises where a step's gradients, in float64, are not the plain step's."""
    method, batch = build_method(shape).double(), draw_batch(shape, CHECKED_PAIRS)
    wanted: dict[str, Tensor] = {}
    for name, step in steps.items():
        taken(step, method, batch, nullcontext())()
        wanted = wanted or gradients(method)
        if not (off := difference(gradients(method), wanted)) < TOLERANCE:
            raise RuntimeError(f"{name}: gradients differ from the plain step's by {off:.1e}")


def time_steps(steps: dict[str, TakeStep], shape: Shape, pairs: int, *, repeats: int) -> list[Row]:
    """Their times beside the plain step's, on one model."""
    method, batch = build_method(shape), draw_batch(shape, pairs)
    contestants = {name: taken(step, method, batch, nullcontext()) for name, step in steps.items()}
    timings = time_in_turn(contestants, repeats=repeats)
    return [timings.compare(f"time, {name}", name, "plain") for name in steps if name != "plain"]


def extra_mib(step: TakeStep, shape: Shape, pairs: int, threads: int) -> float:
    """Memory of a step beyond weights, inputs and gradients, in MiB; for a process of its own."""
    torch.set_num_threads(threads)
    method, cast = build_method(shape), nullcontext()
    warm_up = taken(step, build_method(TINY), draw_batch(TINY, 2), cast)
    peak = peak_bytes(taken(step, method, draw_batch(shape, pairs), cast), warm_up=warm_up)
    return (peak - sum(p.nbytes for p in method.parameters())) / MIB


if __name__ == "__main__":
    main()
