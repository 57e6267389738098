"""The audit's parts of the mining page: the numbers they are told, and texts that stay texts."""

from dataclasses import dataclass

import pytest
from test_mining_report import COUNTS, PROVENANCE

from retrieval_cl.reporting.facts import Found, MiningRound
from retrieval_cl.reporting.mining_audit import recommendation
from retrieval_cl.reporting.mining_facts import AuditFacts, EstimateFacts, Suspect, SuspectList
from retrieval_cl.reporting.mining_report import MiningReport, write_mining_report

EVIL = '<script>alert("x")</script> & <b>bold</b>'


@dataclass(frozen=True)
class Span:
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    margin: float | None
    kept: float
    rate: Span


SWEEP = [
    Point(None, 1.0, Span(0.21, 0.17, 0.26)),
    Point(0.05, 0.72, Span(0.043, 0.021, 0.08)),
    Point(0.1, 0.41, Span(0.004, 0.0, 0.02)),
]


def estimate(**changes):
    values = {"sweep": SWEEP, "bound": 0.05, "recommended": SWEEP[1], "configured": 0.05}
    return EstimateFacts("By judgements held back", SWEEP[1].rate, "It speaks for some.", **values | changes)


def audit(text="plain"):
    found = Found(text, text, 0.0)
    return AuditFacts(
        per_query={0: 3, 4: 1234},
        per_source={"dense": (4000, 1200), text: (936, 77)},
        copies={"over all queries": "4,936 negatives are 812 passages"},
        most_used=[(text, 55)],
        judged={text: (31, 29, 2)},
        difference={"shared negatives": "3,001 (61%)"},
        suspects=[SuspectList(text, text, [Suspect(text, found, found, text)])],
    )


def page_of(tmp_path, read, **parts):
    write_mining_report(tmp_path / "r.html", MiningReport([MiningRound(0, COUNTS)], PROVENANCE, **parts))
    return read((tmp_path / "r.html").read_text(encoding="utf8"))


def test_every_number_of_the_audit_is_shown(tmp_path, read):
    found = page_of(tmp_path, read, audit=audit())
    for text in ("1,234", "4,000", "1,200", "936", "77", "812 passages", "55", "31", "29", "3,001 (61%)"):
        assert text in found.text, text
    for heading in ("What was drawn", "Answers of evaluation queries", "Difference to the older table"):
        assert heading in found.text
    assert "never filtered" in found.text


def test_an_estimate_shows_rate_interval_sweep_and_curve(tmp_path, read):
    found = page_of(tmp_path, read, estimates=[estimate()])
    assert "Estimated false-negative rate: 4.3% of the negatives, 95% interval 2.1% to 8.0%." in found.text
    assert "It speaks for some." in found.text
    for point in SWEEP:
        assert f"{point.kept:.0%}" in found.text
    assert "recommended, configured" in found.text
    assert len(found.all("figure")) == 1


def test_two_estimates_have_curves_with_ids_of_their_own(tmp_path, read):
    found = page_of(tmp_path, read, estimates=[estimate(), estimate()])
    ids = [one["id"] for tag in ("path", "defs", "g", "clippath") for one in found.all(tag) if "id" in one]
    assert len(found.all("figure")) == 2 and len(ids) == len(set(ids))


def test_without_an_estimate_the_page_says_why(tmp_path, read):
    assert "no query has two" in page_of(tmp_path, read, no_estimate="no query has two").text
    assert "How many are right answers?" not in page_of(tmp_path, read).text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Recommended: a relative margin of 0.05 (as configured). It keeps 72% of the candidates"),
        ({"configured": None}, "Recommended: a relative margin of 0.05. It keeps"),
        ({"recommended": SWEEP[0], "configured": None}, "no relative margin is needed (as configured)"),
        ({"recommended": None}, "No margin of the sweep keeps the rate at or below 5.0%"),
    ],
)
def test_the_recommendation_in_words(changes, said):
    assert said in recommendation(estimate(**changes))
    assert recommendation(estimate(sweep=[])) == ""


def test_texts_never_become_markup(tmp_path, read):
    found = page_of(tmp_path, read, audit=audit(EVIL), no_estimate=EVIL)
    assert EVIL in found.text
    assert not found.all("script")
    bold = (tmp_path / "r.html").read_text(encoding="utf8")
    assert "<b>bold</b>" not in bold and "<script" not in bold
