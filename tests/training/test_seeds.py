import random

import numpy as np
import torch

from retrieval_cl.training.seeds import seed_step


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002


def test_same_place_draws_the_same_numbers():
    seed_step(3, rank=1, step=7)
    first = draw()
    torch.rand(5), np.random.rand(5), random.random()  # noqa: NPY002
    seed_step(3, rank=1, step=7)
    assert draw() == first


def test_seed_rank_and_step_each_matter():
    draws = set()
    for seed, rank, step in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32 - 1, 0, 0)]:
        seed_step(seed, rank=rank, step=step)
        draws.update(draw())
    assert len(draws) == 15
