"""The loss on the CPU beside its peers: time, and memory beyond inputs and their gradients.

    python benchmarks/loss.py [--only rate --only memory ...] [--threads 2] [--repeats 5] [--json FILE]

4096 anchors against 8 x 4096 columns of 256 numbers, forward and backward, on given embeddings. Ours always
applies the id rule: four known ids an anchor, and an id a column. Sections: "rate" (the four bare matrix
products), "plain" (torch logits and cross_entropy), "sentence_transformers", "options" (of ours), "nt_xent"
(pytorch-metric-learning), "memory", "large". The first four are timed in turn, together. NTXentLoss holds
several tensors of A * A * C numbers, so it runs at the largest size of 8 columns an anchor that fits half of
the memory that is free; its size stands in the name.

Memory is the rise of the resident memory of a fresh process during one forward and backward (see
`side_by_side.peak_bytes`) less the size of the gradients of anchors, bank and scale, which it must return. At
"large" plain torch needs at least the logits and their gradient, which is what stands as its memory; the four
products there are timed at the usual size and scaled up.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import partial

import psutil
import torch
from contestants import (
    Given,
    Size,
    bare_products,
    cached_multiple_negatives,
    draw,
    multiple_negatives,
    nt_xent,
    ours,
    plain_torch,
    scaled_logits,
    with_known,
)
from side_by_side import (
    MIB,
    Goal,
    Row,
    Step,
    Timings,
    compare_amounts,
    in_child,
    machine,
    parse,
    peak_bytes,
    report,
    time_in_turn,
)

from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import info_nce, sigmoid
from retrieval_cl.core.tile_engine import CPU_TILE

FULL, LARGE = Size(4096, 8 * 4096, 256), Size(16_384, 131_072, 256)
QUICK, QUICK_LARGE = Size(64, 8 * 64, 32), Size(128, 1024, 32)
WARM_UP = Size(64, 8 * 64, 32)
# NTXentLoss peaks at 5.4 times A * A * C float32 numbers (measured at 64 x 512); the rest is caution.
NT_XENT_COPIES = 8
FASTER = Goal(1.0)

CONTESTANTS: dict[str, Callable[[Given], Step]] = {
    "ours": lambda given: ours(given, info_nce),
    "ours bf16": lambda given: ours(given, partial(info_nce, compute_dtype=torch.bfloat16)),
    "bare": lambda given: bare_products(given, tile=CPU_TILE.rows),
    "bare bf16": lambda given: bare_products(given, tile=CPU_TILE.rows, dtype=torch.bfloat16),
    "plain": lambda given: plain_torch(given),
    "plain bf16": lambda given: plain_torch(given, dtype=torch.bfloat16),
    "plain, scaled logits": scaled_logits,
    "MNRL": multiple_negatives,
    "cached MNRL, 32 rows": lambda given: cached_multiple_negatives(given, rows=32),
    "cached MNRL, 512 rows": lambda given: cached_multiple_negatives(given, rows=512),
    "NTXent": nt_xent,
    "symmetric": lambda given: ours(given, partial(info_nce, symmetric=True)),
    "guard": lambda given: ours(given, partial(info_nce, guard=Guard(margin=0.1))),
    "hardness": lambda given: ours(given, partial(info_nce, hardness=0.5)),
    "debias": lambda given: ours(given, partial(info_nce, debias=0.1)),
    "sum of positives": lambda given: ours(given, partial(info_nce, positives="sum")),
    "sigmoid": lambda given: ours(given, sigmoid),
    "1000 known ids": lambda given: ours(with_known(given, 1000), info_nce),
}
OPTIONS = ("symmetric", "guard", "hardness", "debias", "sum of positives", "sigmoid", "1000 known ids")
TIMED = {
    "rate": ("ours", "bare", "ours bf16", "bare bf16"),
    "plain": ("ours", "ours bf16", "plain", "plain bf16", "plain, scaled logits"),
    "sentence_transformers": ("ours", "MNRL", "cached MNRL, 32 rows", "cached MNRL, 512 rows"),
    "options": ("ours", *OPTIONS),
}
SECTIONS = (*TIMED, "nt_xent", "memory", "large")
# Same inputs, same loss: else their times say nothing. bf16 products keep two to three digits.
SAME_LOSS = {name: 1e-4 for name in ("ours", "plain", "plain, scaled logits", "MNRL", "NTXent")} | {
    "cached MNRL, 32 rows": 1e-4,
    "cached MNRL, 512 rows": 1e-4,
    "ours bf16": 3e-2,
    "plain bf16": 3e-2,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the chosen sections and prints one table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=SECTIONS, help="a section; may be repeated")
    given = parse(parser, arguments)
    sections, threads = given.only or SECTIONS, given.threads
    size, large = (QUICK, QUICK_LARGE) if given.quick else (FULL, LARGE)
    rows = time_sections(size, sections, repeats=given.repeats)
    if "nt_xent" in sections:
        rows += beside_nt_xent(size, threads=threads, repeats=given.repeats)
    if "memory" in sections:
        rows += memory(size, threads=threads)
    if "large" in sections:
        rows += beyond_plain(size, large, threads=threads)
    print(f"{machine()}; {size} unless said, median of {given.repeats}; ratio = ours / peer")
    report(rows, given)


def time_sections(size: Size, sections: Sequence[str], *, repeats: int) -> list[Row]:
    """The sections whose contestants share one size, timed in turn."""
    names = dict.fromkeys(name for section in sections for name in TIMED.get(section, ()))
    given = draw(size)
    timings = time_in_turn({name: CONTESTANTS[name](given) for name in names}, repeats=repeats)
    refuse_other_losses(timings)
    rows: list[Row] = []
    if "rate" in sections:
        rows += beside_bare(timings, size)
    if "plain" in sections:
        rows += beside_plain(timings)
    if "sentence_transformers" in sections:
        for peer in TIMED["sentence_transformers"][1:]:
            rows.append(timings.compare(f"time beside {peer}", "ours", peer, goal=FASTER))
    if "options" in sections:
        rows += [timings.compare(f"time with {name} beside without", name, "ours") for name in OPTIONS]
    return rows


def beside_bare(timings: Timings, size: Size) -> list[Row]:
    """Our share of the rate of the products."""
    compare = partial(timings.compare_rates, amount=size.operations / 1e9, unit="GFLOP/s")
    return [
        compare("rate beside four bare products, float32", "ours", "bare", goal=Goal(0.85, "at least")),
        compare(
            "rate beside four bare products, bf16", "ours bf16", "bare bf16", goal=Goal(0.70, "at least")
        ),
    ]


def beside_plain(timings: Timings) -> list[Row]:
    """Our time beside plain torch's."""
    return [
        timings.compare("time beside plain torch, float32", "ours", "plain"),
        timings.compare("time in bf16 beside plain torch in float32", "ours bf16", "plain", goal=Goal(0.25)),
        timings.compare("time beside plain torch, float32, scaled logits", "ours", "plain, scaled logits"),
        timings.compare(
            "time in bf16 beside plain torch in float32, scaled logits", "ours bf16", "plain, scaled logits"
        ),
        timings.compare("time beside plain torch, bf16", "ours bf16", "plain bf16"),
    ]


def beside_nt_xent(size: Size, *, threads: int, repeats: int) -> list[Row]:
    """Time and memory beside NTXentLoss, at the largest size that fits."""
    size = largest_for_nt_xent(size)
    given = draw(size)
    timings = time_in_turn({name: CONTESTANTS[name](given) for name in ("ours", "NTXent")}, repeats=repeats)
    refuse_other_losses(timings)
    mine, theirs = (in_child(extra_mib, name, size, threads) for name in ("ours", "NTXent"))
    return [
        timings.compare(f"time beside NTXent at {size}", "ours", "NTXent", goal=FASTER),
        compare_amounts(f"memory beside NTXent at {size}", mine, theirs, unit="MiB", goal=FASTER),
    ]


def largest_for_nt_xent(size: Size) -> Size:
    """Half as many anchors and columns until several A * A * C numbers fit half of the free memory."""
    room = psutil.virtual_memory().available / 2
    while NT_XENT_COPIES * 4 * size.anchors**2 * size.columns > room:
        size = Size(size.anchors // 2, size.columns // 2, size.dim)
    return size


def memory(size: Size, *, threads: int) -> list[Row]:
    """Memory beyond inputs and gradients, ours beside others."""
    pairs = {
        "float32": ("ours", "plain"),
        "bf16": ("ours bf16", "plain bf16"),
        "beside MNRL": ("ours", "MNRL"),
        "beside cached MNRL, 32 rows": ("ours", "cached MNRL, 32 rows"),
        "symmetric": ("symmetric", "plain"),
    }
    found = {
        name: in_child(extra_mib, name, size, threads) for name in {n for p in pairs.values() for n in p}
    }
    goal = Goal(64.0, of="ours")
    return [
        compare_amounts(f"memory, {label}", found[mine], found[peer], unit="MiB", goal=goal)
        for label, (mine, peer) in pairs.items()
    ]


def beyond_plain(size: Size, large: Size, *, threads: int) -> list[Row]:
    """Ours where plain torch cannot go: run once."""
    mib, seconds = in_child(run_once, "ours", large, threads)
    bare = bare_products(draw(size), tile=CPU_TILE.rows)
    timings = time_in_turn({"bare": bare}, repeats=1)
    expected = timings.seconds["bare"][0] * large.operations / size.operations
    least = 2 * 4 * large.anchors * large.columns / MIB
    return [
        compare_amounts(f"memory at {large}, peer: two tensors of logits", mib, least, unit="MiB"),
        compare_amounts(f"time at {large}, peer: four products, scaled up", seconds, expected, unit="s"),
    ]


def extra_mib(name: str, size: Size, threads: int) -> float:
    """Memory of a contestant beyond inputs and gradients, in MiB; for a process of its own."""
    return run_once(name, size, threads)[0]


def run_once(name: str, size: Size, threads: int) -> tuple[float, float]:
    """Memory in MiB and seconds of one forward and backward; for a process of its own."""
    torch.set_num_threads(threads)
    step, small = CONTESTANTS[name](draw(size)), CONTESTANTS[name](draw(WARM_UP))
    seconds: list[float] = []

    def timed() -> None:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)

    peak = peak_bytes(timed, warm_up=small)
    return (peak - 4 * size.numbers) / MIB, seconds[0]


def refuse_other_losses(timings: Timings) -> None:
    """Raises where a peer's loss is not ours."""
    for name, tolerance in SAME_LOSS.items():
        if name in timings.values and "ours" in timings.values:
            found, wanted = float(timings.values[name]), float(timings.values["ours"])
            if not abs(found - wanted) <= tolerance * abs(wanted):
                raise RuntimeError(f"{name} gives the loss {found:.6f}, ours is {wanted:.6f}")


if __name__ == "__main__":
    main()
