"""What each of several ranks does: one step with every option, one short of memory, what must be refused."""

import os
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import chunk_cases
import pytest
import torch
import torch.distributed as dist

from retrieval_cl.core import tile_engine
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.layout import TileSize
from retrieval_cl.core.losses import info_nce, sigmoid
from retrieval_cl.core.ranks import average_gradients, min_over_ranks, refuse_uneven
from retrieval_cl.training.chunks import whole_tokens
from retrieval_cl.training.fitting import WHOLE, FittedStep
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.steps import cached_step, plain_step

CPU = torch.device("cpu")
OPTIONS = {
    "in batch": {},
    "symmetric": {"objective": partial(info_nce, symmetric=True)},
    "private negatives": {"private_negatives": True},
    "only own negatives": {"in_batch": False},
    "weighted": {"weighted": True},
    "memory": {"memory": 9},
    "sum of positives": {"objective": partial(info_nce, symmetric=True, positives="sum")},
    "mean of positives": {"objective": partial(info_nce, symmetric=True, positives="mean")},
    "hard, debiased, guarded": {
        "objective": partial(
            info_nce, symmetric=True, hardness=0.5, debias=0.05, guard=Guard(margin=0.3), decoupled=True
        )
    },
    "sigmoid": {"objective": sigmoid},
}
STEPS = ("plain", "cached")


@contextmanager
def joined(rank, *, world, folder):
    """Joins the other ranks, and leaves together with them."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    torch.set_num_threads(1)
    # Several tiles, of which some hold the positives of other ranks alone.
    tile_engine.CPU_TILE = TileSize(rows=3, columns=2)
    # Ranks meet in a file: a free port may be taken by another program before they use it.
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    yield
    dist.destroy_process_group()
    # Threads of the group may outlive it, and then the interpreter's end aborts with all done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def take_steps(rank, *, world):
    """Loss and averaged gradients of one step of this rank's slice, by option and step."""
    batch = chunk_cases.slice_batch(chunk_cases.build_batch(num_negatives=3), rank=rank, world=world)
    # Ranks may cut their slices differently.
    steps = {"plain": plain_step, "cached": partial(cached_step, chunk_tokens=10 + 17 * rank)}
    found = {}
    for option, settings in OPTIONS.items():
        for name, step in steps.items():
            method = chunk_cases.build_method(**settings)
            step(method, batch, chunk_cases.CAST)
            average_gradients(method.parameters())
            found[f"{option}, {name}"] = {key: p.grad for key, p in method.named_parameters()}
    return found


def check_short_memory(rank, *, world, folder):
    """One rank runs out of memory, on either pass: all take the step at its size, to the bit."""
    batch = chunk_cases.slice_batch(chunk_cases.build_batch(num_negatives=3), rank=rank, world=world)
    for stage in ("without graph", "with graph", "backward"):
        short, fixed = (chunk_cases.build_method(dropout=0.3) for _ in range(2))

        def fail(now, tokens, stage=stage):
            limit = whole_tokens(batch) // (4 if now == stage else 2)
            if rank == world - 1 and now in (stage, "with graph") and tokens > limit:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        short.encoder.fail = fail
        step = FittedStep(MetricsLog(folder / f"short-{rank}.jsonl"))
        loss, found = chunk_cases.gradients(step, short, batch, seed=rank)
        assert step.chunk_tokens < WHOLE
        assert min_over_ranks([step.chunk_tokens, -step.chunk_tokens], device=CPU) == [
            step.chunk_tokens,
            -step.chunk_tokens,
        ]
        same = partial(cached_step, chunk_tokens=step.chunk_tokens)
        expected_loss, expected = chunk_cases.gradients(same, fixed, batch, seed=rank)
        assert loss == expected_loss
        chunk_cases.assert_same_bits(found, expected)


def check_uneven(rank):
    """All ranks are told, not only the odd one."""
    refuse_uneven({"query": 4, "negative": 0}, device=CPU)
    with pytest.raises(InputError, match=r"bring 3 to 4 rows of view 'query'.*uneven last batch"):
        refuse_uneven({"query": 3 if rank == 1 else 4, "negative": 8}, device=CPU)
    with pytest.raises(InputError, match=r"bring 0 to 8 rows of view 'negative'"):
        refuse_uneven({"query": 4, "negative": 8 if rank == 0 else 0}, device=CPU)


def work(rank, world, folder: Path):
    """Everything above, in one group of ranks; results go to a file a rank."""
    with joined(rank, world=world, folder=folder):
        torch.save(take_steps(rank, world=world), folder / f"steps-{rank}.pt")
        check_short_memory(rank, world=world, folder=folder)
        check_uneven(rank)
