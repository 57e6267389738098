"""Four processes over gloo give the gradients that one gives with the whole batch, in float64."""

import chunk_cases
import pytest
import rank_cases
import torch
import torch.multiprocessing as mp

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    folder = tmp_path_factory.mktemp("four")
    mp.spawn(rank_cases.work, args=(4, folder), nprocs=4)
    return [torch.load(folder / f"steps-{rank}.pt", weights_only=True) for rank in range(4)]


@pytest.fixture(scope="module")
def one():
    return rank_cases.take_steps(0, world=1)


@pytest.mark.parametrize("step", rank_cases.STEPS)
@pytest.mark.parametrize("option", rank_cases.OPTIONS)
def test_four_ranks_equal_one_on_the_whole_batch(four, one, option, step):
    expected = one[f"{option}, plain"]
    for found in four:
        chunk_cases.assert_near(found[f"{option}, {step}"], expected)


def test_four_ranks_hold_the_same_bits(four):
    for found in four[1:]:
        for name, gradients in found.items():
            chunk_cases.assert_same_bits(gradients, four[0][name])
