"""GPU sections that check the loss: equal to float64 on the CPU, and the host never waits for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from statistics import median

import torch
from contestants import Size, draw
from gpu_tools import engine_of, free, kernel_engines
from side_by_side import Goal, Row, compare_amounts, time_in_turn
from torch import Tensor
from torch.nn.functional import normalize

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.engine import Engine
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import Objective, info_nce, sigmoid
from retrieval_cl.core.queue import Queue
from retrieval_cl.core.tile_engine import TileEngine

BF16 = torch.bfloat16
OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    "info_nce": info_nce,
    "symmetric": partial(info_nce, symmetric=True),
    "decoupled, symmetric": partial(info_nce, decoupled=True, symmetric=True),
    "guard": partial(info_nce, guard=Guard(margin=-0.5)),
    "hardness, debias": partial(info_nce, hardness=0.5, debias=0.01),
    "sum of positives": partial(info_nce, positives="sum"),
    "mean of positives, symmetric": partial(info_nce, positives="mean", symmetric=True),
    "sigmoid": sigmoid,
}
# Float32 has the tolerance of all tests; in bf16 0.004 to 0.015 were seen on a CPU.
TOLERANCES = {torch.float32: 1e-5, BF16: 3e-2}
# Those that any engine knows.
ONE_LOG_SUM = (
    "info_nce",
    "symmetric",
    "decoupled, symmetric",
    "sum of positives",
    "mean of positives, symmetric",
)
# The flash kernels take no longer vectors.
FLASH_DIM = 512
EXACT = Goal(1.0, required=True)
QUICK = Size(32, 128, 16)


def equality(device: torch.device, *, quick: bool) -> list[Row]:
    """Losses and gradients on the GPU beside those of the torch tiles in float64 on the CPU.

    Odd sizes, ids that repeat, padding, several known ids, a second part without gradient, private
    candidates. `ours` is the greatest max|difference| / max|wanted| over all objectives and tensors, `peer`
    what is allowed.
    """
    rows = []
    for dim in (24,) if quick else (100, 256, 384, 768):
        num_anchors, columns = (37, 101) if quick else (1027, 5003)
        exact = rich_contrast(num_anchors, columns, dim)
        wanted = {name: found_by(objective, exact) for name, objective in OBJECTIVES.items()}
        contrast = moved(exact, device)
        for label, (dtype, names, engine) in paths(device, dim).items():
            off = {}
            for name in names:
                with engine_of(engine) if engine else nullcontext():
                    found = found_by(partial(OBJECTIVES[name], compute_dtype=dtype), contrast)
                off[name] = greatest_share(found, wanted[name])
            worst = max(off, key=lambda name: math.inf if math.isnan(off[name]) else off[name])
            what = f"off at D = {dim}, {label}; worst: {worst}"
            rows.append(compare_amounts(what, off[worst], TOLERANCES[dtype], unit="share", goal=EXACT))
    return rows


def paths(
    device: torch.device, dim: int
) -> dict[str, tuple[torch.dtype, Sequence[str], type[Engine] | None]]:
    """What is compared: dtype of the products, objectives, engine (None: the one that is chosen)."""
    # In bf16 the guard bars other candidates than in float64, where one lies on its limit.
    short = [name for name in OBJECTIVES if name != "guard"]
    found: dict[str, tuple[torch.dtype, Sequence[str], type[Engine] | None]] = {
        "float32, as chosen": (torch.float32, list(OBJECTIVES), None),
        "float32, torch tiles": (torch.float32, list(OBJECTIVES), TileEngine),
        "bf16, as chosen": (BF16, short, None),
        "bf16, torch tiles": (BF16, short, TileEngine),
    }
    engines = kernel_engines(device)
    if engines:
        found["bf16, sweep"] = (BF16, ONE_LOG_SUM, engines["sweep"])
    if engines and dim <= FLASH_DIM:
        found["bf16, flash"] = (BF16, ONE_LOG_SUM, engines["flash"])
    return found


def rich_contrast(num_anchors: int, num_columns: int, dim: int) -> Contrast:
    """In float64 on the CPU: one of everything the id rule knows."""
    random = torch.Generator().manual_seed(0)
    own = 2 * num_anchors
    counts = (num_columns, num_columns // 3, own)
    vectors = [
        normalize(torch.randn(count, dim, generator=random, dtype=torch.float64), dim=1) for count in counts
    ]
    # Few enough items that some columns share one; -1 is padding.
    ids = [torch.randint(-1, num_columns, (count,), generator=random) for count in counts]
    ids[0][:num_anchors] = torch.arange(num_anchors)
    noise = torch.randn(num_anchors, dim, generator=random, dtype=torch.float64) / dim**0.5
    known = torch.randint(-1, num_columns, (num_anchors, 3), generator=random)
    known[:, 0] = ids[0][:num_anchors]
    parts = (
        Part(vectors[0].requires_grad_(), ids[0]),
        Part(vectors[1], ids[1], name="queue"),
        Part(vectors[2].requires_grad_(), ids[2], shared=False, name="own"),
    )
    return Contrast(
        normalize(vectors[0][:num_anchors].detach() + noise, dim=1).requires_grad_(),
        known,
        Bank(parts),
        torch.arange(num_anchors),
        torch.full((1,), 5.0, dtype=torch.float64, requires_grad=True),
        own=sum(counts[:2]) + torch.arange(own).view(num_anchors, 2),
    )


def moved(contrast: Contrast, device: torch.device) -> Contrast:
    """The same in float32 on a device; ids stay on the host."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device, torch.float32).requires_grad_(tensor.requires_grad)

    parts = (Part(leaf(part.vectors), part.ids, part.shared) for part in contrast.bank.parts)
    scale = leaf(contrast.scale)
    return Contrast(
        leaf(contrast.anchors), contrast.known, Bank(tuple(parts)), contrast.targets, scale, own=contrast.own
    )


def found_by(objective: Objective, contrast: Contrast) -> list[Tensor]:
    """Loss per anchor and the gradients, in float64 on the CPU."""
    vectors = [part.vectors for part in contrast.bank.parts]
    leaves = [
        each for each in (contrast.anchors, contrast.scale, *vectors) if each.requires_grad and each.numel()
    ]
    losses = objective(contrast)
    # Unequal weights: a mean would let errors of single rows cancel.
    weights = torch.linspace(0.5, 2.0, len(losses), dtype=losses.dtype, device=losses.device)
    gradients = torch.autograd.grad((losses * weights).sum(), leaves)
    return [tensor.detach().double().cpu() for tensor in (losses, *gradients)]


def greatest_share(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Greatest max|difference| / max|wanted| over loss and gradients; NaN where one of them is."""
    shares = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True)]
    return math.nan if any(math.isnan(share) for share in shares) else max(shares)


def no_wait(device: torch.device, *, quick: bool) -> list[Row]:
    """Forward, backward and a push with ids on the host: torch raises where the host would wait for the GPU.

    That mode does not see a copy from memory that is not pinned, which waits for what runs before it. So
    steps are also started one after the other: the host's time for one stays well below the device's if it
    waits for nothing (and if the device has enough to do).
    """
    size = QUICK if quick else Size(8192, 65_536, 256)
    rows = []
    for name, objective in OBJECTIVES.items():
        step = with_queue(size, device, partial(objective, compute_dtype=BF16))
        for _ in range(3):
            step()
        free()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        repeats = 1 if quick else 6
        ahead = time_in_turn({"host": step}, repeats=repeats)
        done = time_in_turn({"device": step}, repeats=repeats, wait=torch.cuda.synchronize)
        seconds = median(ahead.seconds["host"]), median(done.seconds["device"])
        rows.append(compare_amounts(f"no wait; host's time beside the device's, {name}", *seconds, unit="s"))
    return rows


def with_queue(size: Size, device: torch.device, objective: Objective) -> Callable[[], None]:
    """A step over a bank and a queue, and the push of the bank's first rows."""
    given = draw(size, dtype=BF16, device=device)
    queue = Queue(size.columns, size.dim, dtype=BF16)
    # Vectors on the device, ids on the host, as the contrast wants all its ids in one place.
    queue.vectors = queue.vectors.to(device)
    queue.push(given.bank.detach(), given.ids + 8 * size.columns)
    targets = given.targets

    def step() -> None:
        bank = Bank((Part(given.bank, given.ids), queue.part()))
        contrast = Contrast(given.anchors, given.known, bank, targets, given.scale)
        torch.autograd.grad(objective(contrast).mean(), (given.anchors, given.bank, given.scale))
        queue.push(given.bank.detach()[: size.anchors], given.ids[: size.anchors])

    return step
