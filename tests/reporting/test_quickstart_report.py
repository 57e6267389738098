"""The quickstart's page: whole, quiet, safe, and honest about what it does not know."""

from __future__ import annotations

import re

import pytest

from retrieval_cl.reporting.curves import Arm
from retrieval_cl.reporting.facts import Comparison, DataFacts, Example, Found, MiningRound, Provenance
from retrieval_cl.reporting.quickstart_report import QuickstartReport, write_report

OPTIONAL = {
    "comparisons": (),
    "arms": (),
    "scores": {},
    "examples": (),
    "mining": (),
    "seconds": {},
    "total_seconds": None,
    "peak_rss_gib": None,
    "next_commands": (),
}
LIGHT = {"arms": (), "scores": {}}  # without the costly pictures
EVIL = '<script src="http://evil.example/x.js">alert("x")</script>\x00\ud800'


@pytest.fixture
def page(tmp_path, read):
    def write(report: QuickstartReport):
        path = tmp_path / "report.html"
        write_report(path, report)
        return read(path.read_text(encoding="utf8"))

    return write


@pytest.fixture(scope="module")
def full(tmp_path_factory, read, make):
    """The page with every part, made once; `html` is its text."""
    path = tmp_path_factory.mktemp("full") / "report.html"
    write_report(path, make())
    found = read(path.read_text(encoding="utf8"))
    found.html = path.read_text(encoding="utf8")
    return found


def test_every_part_is_there(full):
    found = full
    assert len(found.all("section")) == 10
    assert len(found.all("figure")) == len(found.all("svg")) == 4
    plain = found.text.replace("\N{NO-BREAK SPACE}", " ")
    for text in (
        "48,102 query-passage pairs",
        "On 5,210 held-out queries over 57,012 passages",
        "Hard-negative training is better than in-batch training in recall@10 by 1.3 points",
        "no sign of collapse",
        "right at 4",
        "not in the first 5",
        "removed: right answers and their copies",
        "3 min 34 s",
        "Peak memory 2.31 GiB",
        "retrieval-cl quickstart --seed 0",
        "torch 2.11.0",
    ):
        assert text in plain, text


def test_every_picture_has_words_for_those_who_cannot_see_it(full):
    pictures = full.all("svg")
    assert all(picture["role"] == "img" and len(str(picture["aria-label"])) > 40 for picture in pictures)


def test_nothing_is_fetched_and_nothing_runs(full):
    found = full
    assert not {"script", "img", "iframe", "object", "embed", "form"} & {tag for tag, _ in found.tags}
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert "src" not in attributes
        assert str(attributes.get("href", "#")).startswith(("#", "data:,")), tag
        assert all(
            use.startswith("url(#")
            for value in attributes.values()
            for use in re.findall(r"url\(.?", str(value))
        )


def test_links_and_references_lead_somewhere_once(full):
    found = full
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {
        str(attributes["href"])[1:]
        for _, attributes in found.tags
        if str(attributes.get("href")).startswith("#")
    }
    assert targets <= set(ids)


def test_the_file_is_small(tmp_path, make):
    long = [Found("a.b" * 30, "x = 1\n" * 500, 0.5) for _ in range(10)]
    cases = [Example("q " * 500, {name: long for name in ("BM25", "before", "after")}) for _ in range(10)]
    arms = [
        Arm(name, [{"step": s, "round": s // 1000, "loss": 3.0 + s % 7} for s in range(4000)])
        for name in "ab"
    ]
    write_report(tmp_path / "r.html", make(examples=cases, arms=arms))
    assert (tmp_path / "r.html").stat().st_size < 1_000_000


def test_the_same_report_gives_the_same_bytes(tmp_path, full, make):
    write_report(tmp_path / "again.html", make())
    assert (tmp_path / "again.html").read_text(encoding="utf8") == full.html


# What costs no picture: the others are left out in the tests of what is said without them.
@pytest.mark.parametrize("part", ["comparisons", "examples", "mining", "seconds", "next_commands"])
def test_a_missing_part_is_left_out(page, make, part):
    light = LIGHT | {"results": {"mined": make().results["mined"]}}
    whole, without = page(make(**light)), page(make(**light, **{part: OPTIONAL[part]}))
    assert len(without.all("section")) < len(whole.all("section")) or part == "comparisons"
    assert len(without.text) < len(whole.text)


def test_a_report_with_no_optional_part_at_all_is_a_page(page, make):
    found = page(make(**OPTIONAL, results={}))
    assert len(found.all("section")) == 1


def test_without_a_control_nothing_is_claimed_of_hard_negatives(page, make):
    results = {name: row for name, row in make().results.items() if name != "control"}
    arms = [arm for arm in make().arms if arm.name != "control"]
    against_bm25 = [one for one in make().comparisons if one.than == "bm25"]
    text = page(make(scores={}, results=results, arms=arms, comparisons=against_bm25)).text
    assert "No control was trained in this run" in text
    assert "in-batch training" not in text
    assert "cannot be compared, as mined" not in text


def test_a_difference_that_is_not_clear_is_not_sold(page, make):
    weak = Comparison("mined", "control", "recall@10", make().comparisons[2].difference, 0.21)
    text = page(make(**LIGHT, comparisons=[weak])).text
    assert text.count("No clear difference between hard-negative training and in-batch training") == 2
    assert "is better than" not in text


def test_a_collapsed_run_is_said_to_be_collapsed(page, make):
    bad = Arm("mined", [{"step": step, "std_ratio": 0.05, "uniformity": -0.1} for step in (1, 2)])
    assert (
        "Hard negatives: a sign of collapse in spread and uniformity."
        in page(make(scores={}, results={}, arms=[bad])).text
    )


def test_text_from_outside_never_becomes_markup(page, make):
    hit = Found(EVIL, EVIL, 0.5, True)
    counts = make().mining[0].counts
    found = page(
        make(
            data=DataFacts(1, 1, 1, 1, what=EVIL, packages={EVIL: EVIL}),
            model=EVIL,
            provenance=Provenance(EVIL, EVIL, EVIL, {EVIL: EVIL}),
            control_is=EVIL,
            how_chosen=EVIL,
            results={EVIL: make().results["bm25"], "bm25": make().results["bm25"]},
            comparisons=[Comparison(EVIL, "control", "recall@10", make().comparisons[0].difference, 0.01)],
            arms=[Arm(EVIL, make().arms[0].records), make().arms[1]],
            scores={EVIL: [0.1, 0.2]},
            examples=[Example(EVIL, {EVIL: [hit]}, right=hit)],
            mining=[MiningRound(0, counts, further={EVIL: EVIL})],
            seconds={EVIL: 1.0},
            next_commands=[(EVIL, EVIL)],
        )
    )
    assert not found.all("script")
    assert found.text.count("<script") > 20


def test_long_texts_are_cut(page, make):
    hit = Found("t", "y" * 5000, 0.5)
    text = page(
        make(**LIGHT, examples=[Example("x" * 5000, {"BM25": [hit]}), Example("none", {"BM25": []})])
    ).text
    assert "x" * 399 + "\N{HORIZONTAL ELLIPSIS}" in text
    assert "y" * 599 + "\N{HORIZONTAL ELLIPSIS}" in text
    assert "nothing found" in text
