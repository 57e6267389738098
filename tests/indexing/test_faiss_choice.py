import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing.faiss_choice import choose, need, num_lists

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("rows", "dim", "memory", "target", "factory"),
    [
        (999_999, 384, None, None, "Flat"),
        (1_000_000, 384, None, None, "HNSW32,SQfp16"),
        (500_000, 384, 512 * MIB, 0.95, "IVF2048,SQ8"),
        (500_000, 384, GIB, 0.995, "IVF2048,SQfp16"),
        (500_000, 384, 256 * MIB, 0.98, "IVF2048,PQ192"),
        (500_000, 384, 128 * MIB, 0.9, "IVF2048,PQ96"),
        (2_000_000, 384, 3 * GIB, 0.999, "IVF4096,SQfp16"),
        (2_000_000, 384, None, 1.0, "Flat"),
    ],
)
def test_first_kind_that_fits_and_reaches_is_taken(rows, dim, memory, target, factory):
    needed = {"IVF2048,SQfp16": 776, "IVF2048,SQ8": 392, "IVF2048,PQ192": 200, "IVF2048,PQ96": 104}
    if factory in needed and memory is not None:
        assert rows * needed[factory] * 1.5 / 0.75 <= memory + 40 * MIB
    choice = choose(rows, dim, memory_bytes=memory, target_recall=target)
    assert choice.factory == factory
    assert f"{rows:,} rows of dim {dim}" in choice.reason and "bytes a vector" in choice.reason


def test_memory_of_a_build_is_what_it_grows_to_and_a_quarter_beside():
    assert need(1000, 100) == pytest.approx(1000 * 100 * 1.5 / 0.75, abs=1)
    assert need(1000, 100, fixed=600) == pytest.approx((150_000 + 600) / 0.75, abs=1)


def test_lists_are_a_power_of_two_with_enough_rows_each():
    assert num_lists(1_000_000) == 4096 and num_lists(10_000) == 256
    for rows in (1, 38, 39, 100, 1000, 77_777):
        lists = num_lists(rows)
        assert lists & (lists - 1) == 0 and (lists == 1 or rows // lists >= 39)


def test_nothing_that_fits_names_the_memory_that_would_do():
    with pytest.raises(
        InputError, match=r"500,000 vectors.*fits a memory of 10.0 MiB; the smallest needs 1\d\d"
    ):
        choose(500_000, 384, memory_bytes=10 * MIB)
    with pytest.raises(InputError, match=r"reaches recall 1 fits.*the smallest needs 1\.\d+ GiB"):
        choose(500_000, 384, memory_bytes=GIB, target_recall=1.0)
