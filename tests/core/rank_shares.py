"""What each of two ranks does: makes its windows, hears of the other's failure, in blocks within blocks."""

import os

import numpy as np
import pytest
import torch
import torch.distributed as dist

from retrieval_cl.core.errors import InputError, RankFailed
from retrieval_cl.core.ranks import rank
from retrieval_cl.core.shares import make_rows, make_rows_over_ranks, windows
from retrieval_cl.core.together import together

CPU = torch.device("cpu")


def work(number, folder):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=number, world_size=2)
    try:
        check_rows()
        check_failure_within_a_share()
        check_failure_in_any_block()
        check_lines()
    finally:
        dist.destroy_process_group()


def draw(rows):
    """Rows that tell which were made together, and in which order."""
    return np.random.default_rng(rows).normal(size=(len(rows), 3)).astype(np.float32)


def mixed(num_rows):
    return np.random.default_rng(num_rows).permutation(num_rows)


def check_rows():
    for num_rows in (0, 1, 513, 5000):
        asked, order = [], mixed(num_rows)

        def make(rows, asked=asked):
            asked.append(rows.tolist())
            return draw(rows)

        found = make_rows_over_ranks(order, 3, make=make, link=CPU)
        assert found.tobytes() == make_rows(order, 3, make=draw).tobytes()
        every = [order[window].tolist() for window in windows(num_rows)]
        assert asked == [part for number, part in enumerate(every) if number % 4 in ((0, 3), (1, 2))[rank()]]


def check_failure_within_a_share():
    def make(rows):
        if rank() == 1:
            raise InputError("the vector of passage row 7 is NaN")
        return draw(rows)

    with pytest.raises(InputError) as caught:
        make_rows_over_ranks(mixed(2000), 3, make=make, link=CPU)
    assert str(caught.value) == "the vector of passage row 7 is NaN"


def check_failure_in_any_block():
    """All end at the next block's end, whichever that is on each rank."""
    expected = MemoryError if rank() == 1 else RankFailed
    with pytest.raises(expected), together(CPU):
        make_rows_over_ranks(mixed(600), 3, make=draw, link=CPU)
        if rank() == 1:
            raise MemoryError
        make_rows_over_ranks(mixed(600), 3, make=draw, link=CPU)
    with pytest.raises(expected), together(CPU), together(CPU):
        if rank() == 1:
            raise MemoryError
    with pytest.raises(expected), together(CPU):
        with together(CPU):
            pass
        if rank() == 1:
            raise MemoryError
    with together(CPU):
        make_rows_over_ranks(mixed(5), 3, make=draw, link=CPU)


def check_lines():
    """Lines of any length and alphabet; the first rank's where both fail, and each keeps its own."""
    long = "ü" * 2000
    with pytest.raises((OSError, RankFailed)) as caught, together(CPU):
        if rank() == 0:
            raise OSError(f"{long}\nsecond line")
    if rank() == 1:
        assert str(caught.value).startswith("rank 0: OSError: üüü") and "second" not in str(caught.value)
        assert 400 < len(str(caught.value)) < 600
    with pytest.raises((KeyError, ValueError)) as caught, together(CPU):
        raise KeyError("a") if rank() == 0 else ValueError("b")
    assert type(caught.value) is (KeyError if rank() == 0 else ValueError)
