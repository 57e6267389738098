"""GPU sections that measure the loss in bf16: memory, share of the products' rate, time beside others."""

from __future__ import annotations

from functools import partial

import torch
from contestants import Given, Size, bare_products, draw, ours, plain_torch
from gpu_tools import chosen_engines, extra_mib, first_that_fits, halvings, kernel_engines, on_engine
from side_by_side import MIB, Goal, Row, Step, compare_amounts, time_in_turn

from retrieval_cl.core.engine import Engine
from retrieval_cl.core.losses import info_nce
from retrieval_cl.core.tile_engine import TileEngine

BF16 = torch.bfloat16
LARGE, MODERATE = Size(65_536, 524_288, 768), Size(16_384, 131_072, 256)
# Under 2 GB, in MiB.
LARGE_MEMORY, LARGE_SHARE = Goal(1907.0, of="ours"), Goal(0.60, "at least")
PRODUCT_TILE = 16_384
QUICK = Size(64, 512, 32)


def large(device: torch.device, *, quick: bool) -> list[Row]:
    """Memory, and the share of the rate of four bf16 products, at 65,536 x 524,288 x 768 in bf16."""
    size = QUICK if quick else LARGE
    host, there = (draw(size, dtype=BF16, device=device, ids_device=where) for where in ("cpu", device))
    objective = partial(info_nce, compute_dtype=BF16)
    memory = extra_mib(ours(host, objective), gradient_bytes=2 * size.numbers)
    timings = time_in_turn(
        {
            "ours, ids on the host": ours(host, objective),
            "ours, ids on the GPU": ours(there, objective),
            "bare": bare_products(host, tile=PRODUCT_TILE),
        },
        repeats=2 if quick else 4,
        wait=torch.cuda.synchronize,
    )
    least = 2 * 2 * size.anchors * size.columns / MIB
    label = f"memory at {size}, peer: two bf16 tensors of logits"
    return [
        compare_amounts(label, memory, least, unit="MiB", goal=LARGE_MEMORY),
        *(
            timings.compare_rates(
                f"rate beside four bare products at {size}, {where}",
                f"ours, {where}",
                "bare",
                amount=size.operations / 1e12,
                unit="TFLOP/s",
                goal=LARGE_SHARE,
            )
            for where in ("ids on the host", "ids on the GPU")
        ),
    ]


def beside_plain(device: torch.device, *, quick: bool) -> list[Row]:
    """Time and memory beside plain torch in bf16, D = 768, at the largest size that fits it."""
    sizes = halvings(QUICK if quick else LARGE)
    size = first_that_fits(sizes, partial(_run_plain, device))
    given = draw(size, dtype=BF16, device=device)
    steps = {
        "ours": ours(given, partial(info_nce, compute_dtype=BF16)),
        "plain": plain_torch(given, dtype=BF16),
    }
    memory = [extra_mib(step, gradient_bytes=2 * size.numbers) for step in steps.values()]
    timings = time_in_turn(steps, repeats=3, wait=torch.cuda.synchronize)
    return [
        timings.compare(f"time beside plain torch at {size}", "ours", "plain"),
        compare_amounts(f"memory beside plain torch at {size}", *memory, unit="MiB"),
    ]


def small_dims(device: torch.device, *, quick: bool) -> list[Row]:
    """D = 256 and 384 in bf16: each engine, plain torch and the bare products, timed in turn."""
    rows = []
    for dim in (256, 384):
        size = QUICK if quick else Size(MODERATE.anchors, MODERATE.columns, dim)
        size = first_that_fits(halvings(Size(size.anchors, size.columns, dim)), partial(_run_plain, device))
        given = draw(size, dtype=BF16, device=device)
        for symmetric in (False, True):
            step = ours(given, partial(info_nce, symmetric=symmetric, compute_dtype=BF16))
            name = "symmetric" if symmetric else "one direction"
            rows += beside_others(given, size, step, name=name, repeats=1 if quick else 5)
    return rows


def beside_others(given: Given, size: Size, step: Step, *, name: str, repeats: int) -> list[Row]:
    """Rows of one objective of ours beside all others, and of every engine beside the chosen one."""
    device = given.anchors.device
    engines: dict[str, type[Engine]] = {"torch tiles": TileEngine, **kernel_engines(device)}
    steps: dict[str, Step] = {
        "ours": step,
        "plain torch": plain_torch(given, dtype=BF16),
        "bare": bare_products(given, tile=PRODUCT_TILE),
        **{label: on_engine(engine, step) for label, engine in engines.items()},
    }
    timings = time_in_turn(steps, repeats=repeats, wait=torch.cuda.synchronize)
    (chosen,) = chosen_engines(step)
    where, amount = f"{name} at {size}", size.operations / 1e12
    memory = {
        label: extra_mib(steps[label], gradient_bytes=2 * size.numbers)
        for label in ("ours", "plain torch", *engines)
    }
    return [
        timings.compare_rates(
            f"rate beside bare products, {chosen}, {where}", "ours", "bare", amount=amount, unit="TFLOP/s"
        ),
        timings.compare(f"time beside plain torch in one direction, {where}", "ours", "plain torch"),
        *(timings.compare(f"time beside {label}, {where}", "ours", label) for label in engines),
        *(
            compare_amounts(f"memory beside {label}, {where}", memory["ours"], memory[label], unit="MiB")
            for label in ("plain torch", *engines)
        ),
    ]


def _run_plain(device: torch.device, size: Size) -> None:
    plain_torch(draw(size, dtype=BF16, device=device), dtype=BF16)()
