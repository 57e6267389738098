"""The page of a mining run, made from the miner's own counts."""

from __future__ import annotations

from retrieval_cl.mining.counts import MiningCounts
from retrieval_cl.reporting.facts import Example, Found, MiningRound, Provenance
from retrieval_cl.reporting.mining_report import MiningReport, write_mining_report

PROVENANCE = Provenance(command="retrieval-cl mine configs/x.yaml --report", made_at="2026-01-01")
COUNTS = MiningCounts(
    num_queries=10,
    found={"dense": 400, "lexical": 100},
    removed={"known": 12, "my_rule": 0},
    kept=488,
    drawn={"dense": 60, "lexical": 10},
    short_queries=2,
    missing=10,
    empty=10,
    mean_rank=7.25,
    rank_quantiles={0.5: 6.0},
    score_quantiles={0.5: 0.44},
)


def write(tmp_path, read, report):
    write_mining_report(tmp_path / "r.html", report)
    return read((tmp_path / "r.html").read_text(encoding="utf8"))


def test_the_miners_own_counts_are_shown(tmp_path, read):
    found = write(tmp_path, read, MiningReport([MiningRound(3, COUNTS, seconds=2.0)], PROVENANCE))
    assert "70 negatives for 10 queries, 7.0 a query. 10 places stayed empty." in found.text
    for text in (
        "round 3",
        "500",
        "2.4%",
        "removed: my rule",
        "60 dense, 10 lexical",
        "7.2",
        "0.44",
        "2.0 s",
    ):
        assert text in found.text, text


def test_a_rule_of_one_round_only_counts_0_in_the_other(tmp_path, read, make):
    rounds = [MiningRound(1, COUNTS), make().mining[0]]
    found = write(tmp_path, read, MiningReport(rounds, PROVENANCE))
    assert len(found.all("th")) == 3
    assert found.text.count("removed: ") == 5
    assert "removed: my rule00" in found.text


def test_examples_and_scores_are_shown(tmp_path, read):
    case = Example("how?", {"negatives": [Found("b", "", 0.4)]}, right=Found("a", "", 0.9))
    report = MiningReport([MiningRound(0, COUNTS)], PROVENANCE, scores={"mined": [0.3, 0.5]}, examples=[case])
    found = write(tmp_path, read, report)
    assert "Right answer: a" in found.text
    assert "not in the first" not in found.text
    assert len(found.all("figure")) == 1
