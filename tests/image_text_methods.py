"""Tiny towers and batches of images with texts, in plain functions that a spawned rank can call too."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from image_methods import SIDE
from torch import nn
from torch.nn.functional import normalize

from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import info_nce, sigmoid
from retrieval_cl.core.ranks import average_gradients
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.temperature import Bias, Temperature
from retrieval_cl.core.views import Batch, Pixels, View
from retrieval_cl.methods.clip import Clip
from retrieval_cl.training.leaks import check_leaks
from retrieval_cl.training.seeds import seed_step
from retrieval_cl.training.steps import cached_step, plain_step

DIM, WORDS = 5, 20
BOTH_WAYS = partial(info_nce, symmetric=True)


class Towers(nn.Module):
    """A layer for images, mean word vectors and a layer for texts; unit rows."""

    def __init__(self, *, start_temperature=None, start_bias=None):
        super().__init__()
        self.image = nn.Linear(3 * SIDE * SIDE, DIM)
        self.words = nn.EmbeddingBag(WORDS, DIM, mode="mean")
        self.text = nn.Linear(DIM, DIM)
        self.start_temperature, self.start_bias = start_temperature, start_bias

    def embed_images(self, pixels):
        return normalize(torch.tanh(self.image(pixels.flatten(1))), dim=1)

    def embed_texts(self, tokens):
        values = torch.from_numpy(tokens.values.astype(np.int64))
        return normalize(self.text(self.words(values, torch.from_numpy(tokens.offsets[:-1]))), dim=1)


def build_towers(**starts):
    torch.manual_seed(0)
    return Towers(**starts)


def build_clip(*, temperature=0.2, objective=BOTH_WAYS, bias=None, **options):
    return Clip(
        build_towers(),
        Temperature(temperature, learned=True),
        objective=objective,
        bias=None if bias is None else Bias(bias),
        **options,
    )


def build_batch(num_images=4, *, seed=0, mined=0, edits=0, dtype=torch.float32):
    """Images with two texts each, one of which other images have too; one of the two is in the batch.

    Mined texts hold such that match the image and one that is missing; edited ones one that is missing.
    """
    generator = np.random.default_rng(seed)
    random = torch.Generator().manual_seed(seed)

    def texts(ids):
        rows = [generator.integers(0, WORDS, n).tolist() for n in generator.integers(1, 6, len(ids))]
        return View(Ragged.from_lists(rows, dtype=np.int32), torch.from_numpy(ids))

    known = np.stack([np.arange(num_images) % 3, 10 + np.arange(num_images)], axis=1)
    chosen = known[np.arange(num_images), generator.integers(0, 2, num_images)]
    # Every third image is shown with the text that these share.
    chosen[::3] = known[::3, 0]
    pixels = torch.randn(num_images, 3, SIDE, SIDE, generator=random, dtype=dtype)
    views = {"image": View(Pixels(pixels), torch.arange(num_images)), "text": texts(chosen)}
    if mined:
        ids = generator.integers(0, 10 + 2 * num_images, num_images * mined)
        ids[0], ids[-1] = known[0, 1], -1
        views["negative"] = texts(ids)
    if edits:
        ids = 1000 + np.arange(num_images * edits)
        ids[1] = -1
        views["edit"] = texts(ids)
    return Batch(views, torch.from_numpy(np.concatenate([known, np.full((num_images, 1), -1)], axis=1)))


def slice_batch(batch, *, rank, world):
    """The images of one rank, with all that is theirs."""

    def part(values):
        share = len(values) // world
        return np.arange(rank * share, (rank + 1) * share)

    views = {
        kind: View(view.inputs.take(part(view.ids)), view.ids[part(view.ids)])
        for kind, view in batch.views.items()
    }
    return Batch(views, batch.known[part(batch.known)])


HARD = {"hardness": 0.5, "debias": 0.05, "guard": Guard(margin=0.3), "decoupled": True}
BUILDERS = {
    "both ways": build_clip,
    "private mined texts": partial(build_clip, private_negatives=True),
    "mean of positives": partial(build_clip, objective=partial(BOTH_WAYS, positives="mean")),
    "sum of positives": partial(build_clip, objective=partial(BOTH_WAYS, positives="sum")),
    "hard, debiased, guarded": partial(build_clip, objective=partial(BOTH_WAYS, **HARD)),
    "sigmoid": partial(build_clip, objective=sigmoid, bias=-3.0),
    "sigmoid, all positives": partial(
        build_clip, objective=partial(sigmoid, positives="sum"), bias=-3.0, private_negatives=True
    ),
}
# The others sum over ranks what some of these do.
RANK_CASES = {name: BUILDERS[name] for name in BUILDERS if name not in ("mean of positives", "sigmoid")}
STEPS = {"plain": plain_step, "cached": partial(cached_step, chunk_tokens=5)}


def take_steps(rank, *, world):
    """Loss and averaged gradients of one step of this rank's slice, by builder and step, in float64."""
    found = {}
    whole = build_batch(8, mined=2, edits=2, dtype=torch.float64)
    batch = slice_batch(whole, rank=rank, world=world)
    for name, build in RANK_CASES.items():
        for kind, step in STEPS.items():
            method = build().double()
            seed_step(0, rank=rank, step=0)
            loss, _ = step(method, batch, nullcontext())
            average_gradients(method.parameters())
            gradients = {key: p.grad.clone() for key, p in method.named_parameters()}
            found[f"{name}, {kind}"] = {"loss": loss} | gradients
    return found


def check_floors(rank, *, world):
    """A perfect encoder reaches the floor through every objective, on every rank."""
    for build in RANK_CASES.values():
        batches = [
            slice_batch(build_batch(8, seed=seed, mined=2, edits=2), rank=rank, world=world)
            for seed in range(2)
        ]
        assert check_leaks(build(), batches)
