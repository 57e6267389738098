"""Tiny image methods and batches, in plain functions that a spawned rank can call too."""

from contextlib import nullcontext
from functools import partial

import torch
from torch import nn

from retrieval_cl.core.momentum import constant_momentum
from retrieval_cl.core.queue import Queue
from retrieval_cl.core.ranks import average_gradients
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.core.views import Batch, Pixels, View
from retrieval_cl.encoders.batch_norm import SyncBatchNorm, convert_norms
from retrieval_cl.methods.byol import BYOL
from retrieval_cl.methods.image_tower import Branch, views_together
from retrieval_cl.methods.moco import MoCo
from retrieval_cl.methods.simclr import SimCLR
from retrieval_cl.training.leaks import check_leaks
from retrieval_cl.training.seeds import seed_step
from retrieval_cl.training.steps import plain_step

DIM, SIDE = 6, 3


class ImageTower(nn.Module):
    """One layer and a nonlinearity; no BatchNorm unless asked for."""

    def __init__(self, *, dim=DIM, norm=False):
        super().__init__()
        self.dim = dim
        self.layer = nn.Linear(3 * SIDE * SIDE, dim)
        self.norm = nn.BatchNorm1d(dim) if norm else nn.Identity()

    def features(self, pixels):
        return torch.tanh(self.norm(self.layer(pixels.flatten(1))))


def build_branch(*, norm=False, seed=0):
    torch.manual_seed(seed)
    return Branch(ImageTower(norm=norm), nn.Linear(DIM, DIM), dim=DIM)


def build_simclr(*, temperature=0.5, norm=False, **options):
    return SimCLR(build_branch(norm=norm), Temperature(temperature), **options)


def build_moco(*, temperature=0.2, momentum=0.9, queue=16, predictor=False, norm=False, **options):
    branch = build_branch(norm=norm)
    return MoCo(
        branch,
        Temperature(temperature),
        momentum=constant_momentum(momentum),
        queue=Queue(queue, DIM) if queue else None,
        predictor=nn.Linear(DIM, DIM) if predictor else None,
        **options,
    )


def build_byol(*, momentum=0.9, norm=False, **options):
    branch = build_branch(norm=norm)
    return BYOL(branch, momentum=constant_momentum(momentum), predictor=nn.Linear(DIM, DIM), **options)


BUILDERS = {
    "simclr": build_simclr,
    "moco": build_moco,
    "moco, symmetric": partial(build_moco, symmetric=True),
    "moco, batch and queue": partial(build_moco, symmetric=True, in_batch_keys=True),
    "moco v3": partial(
        build_moco, queue=0, in_batch_keys=True, symmetric=True, predictor=True, loss_factor=0.8
    ),
    "byol": build_byol,
}


def build_batch(ids=(10, 11, 12, 13), *, seed=0, per_image=0, dtype=torch.float32):
    """Two views of each image; images of one id are copies. Mined negatives: ids from 12 on, and padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor(ids)

    def view(ids):
        return View(Pixels(torch.randn(len(ids), 3, SIDE, SIDE, generator=generator, dtype=dtype)), ids)

    views = {"view_a": view(ids), "view_b": view(ids)}
    if per_image:
        negatives = 12 + torch.arange(len(ids) * per_image) % 5
        negatives[-1] = -1
        views["negative"] = view(negatives)
    return Batch(views, ids[:, None])


def slice_batch(batch, *, rank, world):
    """The images of one rank, with all that is theirs."""

    def part(values):
        share = len(values) // world
        return slice(rank * share, (rank + 1) * share)

    views = {
        kind: View(Pixels(view.inputs.values[part(view.ids)]), view.ids[part(view.ids)])
        for kind, view in batch.views.items()
    }
    return Batch(views, batch.known[part(batch.known)])


def build_sync(**options):
    """With BatchNorm over the rows of all ranks."""
    branch = build_branch(norm=True)
    convert_norms(branch, SyncBatchNorm)
    return MoCo(
        branch,
        Temperature(0.2),
        momentum=constant_momentum(0.9),
        queue=Queue(24, DIM),
        symmetric=True,
        **options,
    )


RANK_CASES = BUILDERS | {
    "simclr, private negatives": partial(build_simclr, private_negatives=True),
    "moco, private negatives": partial(build_moco, private_negatives=True, symmetric=True),
    "moco, shuffled": partial(build_moco, shuffle_keys=True),
    "moco, sync norm": build_sync,
    "moco, sync norm, views together": partial(build_sync, embed_views=views_together),
    "moco, norm of a rank": partial(build_moco, norm=True, shuffle_keys=True),
}


def train_steps(rank, *, world, steps=2):
    """Losses, gradients of the first step and all state after two, of this rank's slices, by case."""
    found = {}
    for name, build in RANK_CASES.items():
        method = build().double()
        trained = {key: p for key, p in method.named_parameters() if p.requires_grad}
        optimizer = torch.optim.SGD(trained.values(), lr=0.1)
        losses, first = [], None
        for step in range(steps):
            seed_step(0, rank=rank, step=step)
            # Images come back: the queue holds older copies.
            ids = [10 + (8 * step + i) % 12 for i in range(8)]
            mined = 2 if "negative" in method.views else 0
            whole = build_batch(ids, seed=step, per_image=mined, dtype=torch.float64)
            batch = slice_batch(whole, rank=rank, world=world)
            loss, embeddings = plain_step(method, batch, nullcontext())
            average_gradients(method.parameters())
            first = first or {key: p.grad.clone() for key, p in trained.items()}
            optimizer.step()
            optimizer.zero_grad()
            method.after_step(embeddings, batch, step / steps)
            losses.append(loss)
        found[name] = {"loss": torch.stack(losses)} | {f"gradient of {key}": g for key, g in first.items()}
        found[name] |= {key: value.clone() for key, value in method.state_dict().items()}
    return found


def check_floors(rank, *, world):
    """A perfect encoder reaches the floor through every method, on every rank."""
    for build in BUILDERS.values():
        method = build()
        mined = 2 if "negative" in method.views else 0
        batches = [
            slice_batch(build_batch(ids, seed=seed, per_image=mined), rank=rank, world=world)
            for seed, ids in enumerate(((10, 11, 12, 11, 13, 14), (13, 20, 10, 21, 22, 23)))
        ]
        assert check_leaks(method, batches)


class ImageSource:
    """Batches of 8 among 20 images, four steps an epoch."""

    steps_per_epoch = 4

    def batches(self, negatives, *, round, num_steps, start_step, rank, world, **others):
        for step in range(start_step, num_steps):
            place = 100 * round + step
            ids = [10 + (8 * place + i) % 20 for i in range(8)]
            yield slice_batch(build_batch(ids, seed=place), rank=rank, world=world)
