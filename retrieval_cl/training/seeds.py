"""Random numbers of a step, from nothing but seed, rank and step."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_step(seed: int, *, rank: int, step: int) -> None:
    """Seeds Python, NumPy and torch for one step (dropout, augmentation).

    What went before (an evaluation, a resume, numbers drawn by a callback) cannot change a step, and a
    checkpoint needs no generator states of any rank.
    """
    words = np.random.SeedSequence((seed, rank, step)).generate_state(4, dtype=np.uint64)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]) & 0xFFFFFFFF)  # noqa: NPY002 (other people's code draws from it)
    torch.manual_seed(int(words[2]) >> 1)
