"""GPU sections of a training step: cached beside plain, the largest batch, chunks that fit by themselves.

The tower is a BERT-base of random weights; queries have up to 32 and passages up to 256 tokens; bf16.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from pathlib import Path

import torch
from gpu_tools import extra_mib, first_that_fits, free
from side_by_side import Goal, Row, compare_amounts, time_in_turn
from torch import Tensor, nn
from towers import BASE, TINY, Shape, build_method, difference, draw_batch, gradients, taken

from retrieval_cl.methods.dual_encoder import DualEncoder
from retrieval_cl.training.steps import TakeStep, cached_step, plain_step

MOST_PAIRS = 2048
CHUNK_TOKENS = 16_384
EXACT = Goal(1.0, required=True)


def cached(device: torch.device, *, quick: bool) -> list[Row]:
    """Time and memory beside the plain step at half its largest batch, and a batch eight times that one."""
    shape, chunk = (TINY, 64) if quick else (BASE, CHUNK_TOKENS)
    rows = [same_gradients(device, shape, 8 if quick else 64, chunk_tokens=64 if quick else 2048)]
    method = build_method(shape, device=device)
    most = largest_batch(method, shape, device, most=16 if quick else MOST_PAIRS)
    pairs = max(2, most // 2)
    steps: dict[str, TakeStep] = {
        "plain": plain_step,
        f"chunks of {chunk} tokens": partial(cached_step, chunk_tokens=chunk, graph_tokens=0),
        "half the graphs kept": partial(
            cached_step, chunk_tokens=chunk, graph_tokens=tokens_of(shape, pairs) // 2
        ),
    }
    takes = {name: step_of(step, method, shape, device, pairs=pairs) for name, step in steps.items()}
    timings = time_in_turn(takes, repeats=3, wait=torch.cuda.synchronize)
    memory = {name: memory_of(take, method) for name, take in takes.items()}
    for name in list(steps)[1:]:
        label = f"at {pairs} pairs, {name}"
        rows += [
            timings.compare_rates(f"rate {label}", name, "plain", amount=pairs, unit="pairs/s"),
            compare_amounts(f"memory {label}", memory[name], memory["plain"], unit="MiB"),
        ]
    many = 8 * most
    take = step_of(steps[f"chunks of {chunk} tokens"], method, shape, device, pairs=many)
    mib = memory_of(take, method)
    once = time_in_turn({"cached": take}, repeats=1, wait=torch.cuda.synchronize).seconds["cached"][0]
    return [
        *rows,
        compare_amounts("largest batch by doubling; ours: still runs", many, most, unit="pairs"),
        compare_amounts(f"memory at {many} pairs, peer: plain at {pairs}", mib, memory["plain"], unit="MiB"),
        Row(f"rate at {many} pairs", many / once, None, "pairs/s", None),
    ]


def fitted(device: torch.device, *, quick: bool) -> list[Row]:
    """The step that finds its chunks' size, at four times the plain step's largest batch."""
    from retrieval_cl.training.fitting import FittedStep
    from retrieval_cl.training.metrics import MetricsLog

    shape = TINY if quick else BASE
    method = build_method(shape, device=device)
    pairs = 4 * largest_batch(method, shape, device, most=16 if quick else MOST_PAIRS)
    with tempfile.TemporaryDirectory() as folder:
        step = FittedStep(MetricsLog(Path(folder) / "metrics.jsonl"))
        take = step_of(step, method, shape, device, pairs=pairs)
        first, following = (_seconds(take) for _ in range(2))
    chunk = min(step.chunk_tokens, tokens_of(shape, pairs))
    return [
        compare_amounts(f"chunk found for {pairs} pairs", chunk, tokens_of(shape, pairs), unit="tokens"),
        compare_amounts(f"time to find it at {pairs} pairs, peer: the next step", first, following, unit="s"),
    ]


def same_gradients(device: torch.device, shape: Shape, pairs: int, *, chunk_tokens: int) -> Row:
    """Cached beside plain in float64; `peer` is what is allowed."""
    method, batch = build_method(shape, device=device).double(), draw_batch(shape, pairs)
    cast = torch.autocast(device.type, enabled=False)
    found = []
    for step in (plain_step, partial(cached_step, chunk_tokens=chunk_tokens, graph_tokens=2 * chunk_tokens)):
        taken(step, method, batch, cast)()
        found.append(gradients(method))
    off = difference(found[1], found[0])
    return compare_amounts("cached gradients off, float64", off, 1e-12, unit="share", goal=EXACT)


def memory_of(take: Callable[[], Tensor], method: nn.Module) -> float:
    """Memory of a step beyond weights, batch and gradients, in MiB."""
    # Else the gradients of the run before would count as inputs.
    method.zero_grad()
    return extra_mib(take, gradient_bytes=sum(p.nbytes for p in method.parameters()))


def largest_batch(method: DualEncoder, shape: Shape, device: torch.device, *, most: int) -> int:
    """The largest power of two pairs, up to `most`, whose plain step fits."""
    counts = takewhile(lambda pairs: pairs >= 2, (most >> halvings for halvings in range(32)))

    def run(pairs: int) -> None:
        try:
            step_of(plain_step, method, shape, device, pairs=pairs)()
        finally:
            method.zero_grad()

    return first_that_fits(counts, run)


def step_of(
    step: TakeStep, method: DualEncoder, shape: Shape, device: torch.device, *, pairs: int
) -> Callable[[], Tensor]:
    """A step of a batch of so many pairs, in bf16."""
    cast = torch.autocast(device.type, dtype=torch.bfloat16)
    return taken(step, method, draw_batch(shape, pairs), cast)


def tokens_of(shape: Shape, pairs: int) -> int:
    """Tokens of a batch, padding left out."""
    return sum(len(view.inputs.values) for view in draw_batch(shape, pairs).views.values())


def _seconds(take: Callable[[], object]) -> float:
    free()
    start = time.perf_counter()
    take()
    torch.cuda.synchronize()
    return time.perf_counter() - start
