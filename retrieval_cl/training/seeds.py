"""Random numbers of a step and of its chunks, from nothing but seed, rank and step."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_step(seed: int, *, rank: int, step: int) -> None:
    """Seeds Python, NumPy and torch for one step (dropout, augmentation).

    What went before (an evaluation, a resume, numbers drawn by a callback) cannot change a step, and a
    checkpoint needs no generator states of any rank.
    """
    seed_all(seed, rank, step)


def seed_all(*words: int) -> None:
    """Seeds Python, NumPy and torch (CPU and every GPU, without waiting for one) from whole numbers >= 0."""
    state = np.random.SeedSequence(words).generate_state(4, dtype=np.uint64)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]) & 0xFFFFFFFF)  # noqa: NPY002 (other people's code draws from it)
    torch.manual_seed(int(state[2]) >> 1)


def draw_seed() -> int:
    """A seed from torch's CPU generator, so that it follows from the step's."""
    return int(torch.randint(2**62, ()))
