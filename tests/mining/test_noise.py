"""Chance is splitmix64 of its keys, uniform, and different for every key."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mining_reference import slow_noise

from retrieval_cl.mining import noise as chance

few = settings(max_examples=40, deadline=None)


@few
@given(seed=st.integers(-(2**63), 2**63), round=st.integers(0, 99), query=st.integers(0, 2**62))
def test_noise_is_splitmix64_of_its_keys(seed, round, query):
    passages = np.array([[0, 7, 2**40]])
    noise = chance.hash_noise(seed, round, np.array([[query]]), passages)
    assert noise.tolist() == [[slow_noise(seed, round, query, p) for p in passages[0].tolist()]]


def test_splitmix64_gives_its_published_first_numbers():
    # The generator's outputs from state 0: the state grows by the golden constant, each is mixed.
    state = np.zeros(1, dtype=np.uint64)
    first = chance.mix(state)
    second = chance.mix(state + np.uint64(0x9E3779B97F4A7C15))
    assert [int(first[0]), int(second[0])] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_noise_is_uniform_and_differs_with_every_key():
    grid = [np.arange(200)[:, None], np.arange(200)[None, :]]
    noise = chance.hash_noise(1, 2, *grid)
    filled, _ = np.histogram(noise, bins=20, range=(0, 1))
    assert noise.min() > 0 and noise.max() < 1
    assert np.abs(filled - 2000).max() < 5 * math.sqrt(2000)
    others = [chance.hash_noise(*keys, *grid) for keys in ((2, 2), (1, 3), (2, 1))]
    others.append(chance.hash_noise(1, 2, *grid, stream=1))
    for other in [*others, noise.T]:
        assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.03


@few
@given(seed=st.integers(0, 99), bits=st.integers(1, 9), query=st.integers(0, 2**40))
def test_shuffled_is_a_permutation_for_every_query(seed, bits, query):
    steps = np.arange(2**bits)
    places = chance.shuffled(steps, np.array([query, query + 1]), seed=seed, round=0, bits=bits)
    np.testing.assert_array_equal(np.sort(places, axis=1), [steps, steps])


def test_shuffled_sends_every_step_everywhere_equally_often():
    places = chance.shuffled(np.arange(8), np.arange(8000), seed=1, round=2, bits=3)
    for step in range(8):
        assert np.abs(np.bincount(places[:, step], minlength=8) - 1000).max() < 5 * math.sqrt(1000)
