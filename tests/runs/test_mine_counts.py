"""What a terminal is told of a run that was short of candidates."""

import pytest

from retrieval_cl.mining.counts import MiningCounts
from retrieval_cl.runs.mine_counts import count_lines, shortages


def counted(*, empty=0, dense=40, unmet=None, widened=0, removed=None):
    return MiningCounts(
        num_queries=10,
        found={"dense": 100},
        removed=removed or {"known": 10},
        kept=90,
        drawn={"dense": dense},
        short_queries=empty,
        missing=empty,
        empty=empty,
        mean_rank=1.0,
        rank_quantiles={},
        score_quantiles={},
        unmet=unmet or {},
        widened=widened,
    )


def test_quotas_that_could_not_be_filled_and_deeper_searches_are_told():
    counts = counted(unmet={"lexical": 35, "random": 0}, widened=1779)
    assert shortages(counts) == {
        "queries searched again, deeper": 1779,
        "places that the quota of lexical could not fill": 35,
    }
    lines = count_lines(counts)
    assert "queries searched again, deeper: 1,779" in lines
    assert "places that the quota of lexical could not fill: 35" in lines
    assert len(count_lines(counted())) == 3


@pytest.mark.parametrize(
    ("rule", "advice"),
    [
        ("relative_margin", "set mining.positive to strongest"),
        ("rank_window", "lower mining.rank_min"),
        ("min_score", "loosen mining.min_score"),
    ],
)
def test_a_table_that_is_mostly_empty_says_which_rule_to_loosen(rule, advice):
    lines = count_lines(counted(empty=30, dense=10, removed={"known": 10, rule: 60}))
    assert lines[-1].startswith("candidates are missing for half of the places") and advice in lines[-1]
    assert not any("missing" in line for line in count_lines(counted(empty=10, dense=30)))
