"""`mine` with a model: audit, estimate, plan and comparison, on a tiny set with several answers a query."""

import json
import re
from typing import get_args

import pytest

from retrieval_cl import options
from retrieval_cl.mining.export import Scores, Shape

VERBS = ("open", "close", "read", "write", "sort", "merge", "split", "count")


@pytest.fixture
def several(trained):
    """The tiny data, where each train query is also answered by the passage on the next verb."""
    data = trained.parent / "beir"
    path = data / "qrels" / "train.tsv"
    head, *lines = path.read_text().splitlines()
    for line in list(lines):
        query, passage, _ = line.split("\t")
        verb, thing = passage.split("-")
        lines.append(f"{query}\t{VERBS[(VERBS.index(verb) + 1) % 8]}-{thing}\t1")
    path.write_text("\n".join([head, *lines]) + "\n")
    return data


@pytest.mark.parametrize("shape", get_args(Shape))
def test_every_shape_is_written(cli, trained, tmp_path, shape):
    ran = cli("mine", trained, "--shape", shape, "--scores", "none", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in (tmp_path / "out" / f"{shape}.jsonl").read_text().splitlines()]
    assert rows and not any("scores" in row for row in rows)


def test_the_command_offers_the_shapes_and_scores_that_there_are():
    assert (options.Shape, options.Scores) == (Shape, Scores)


def test_scores_of_a_teacher_need_one(cli, trained, tmp_path):
    ran = cli("mine", trained, "--scores", "teacher", "-o", tmp_path / "out")
    assert ran.code == 2 and "set mining.reranker" in ran.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_outputs_place_is_refused_before_the_work(cli, trained, tmp_path):
    (tmp_path / "out").write_text("mine")
    ran = cli("mine", trained, "-o", tmp_path / "out")
    assert ran.code == 2 and "out: a file stands there; --output takes a folder" in ran.line
    assert (tmp_path / "out").read_text() == "mine"


def facts_of(folder):
    return json.loads((folder / "mining.json").read_text())


def test_audit_and_estimate_are_in_the_json_and_on_the_page(cli, trained, several, tmp_path):
    out = tmp_path / "out"
    ran = cli(
        "mine",
        trained,
        "--data",
        several,
        "-o",
        out,
        "--set",
        "mining.relative_margin=null",
        "--bound",
        "0.2",
    )
    assert ran.code == 0, ran.err
    facts, rows = facts_of(out), (out / "triplets.jsonl").read_text().splitlines()
    audit = facts["audit"]
    negatives = sum(int(number) * queries for number, queries in audit["per_query"].items())
    assert negatives == audit["per_source"]["dense"]["negatives"] > 0
    assert len(rows) == 2 * negatives  # a row for each of the two answers
    # The negatives of a query on one thing are on that thing: many answer a test query.
    assert audit["judged"].keys() == {"dev", "test"}
    assert audit["judged"]["test"]["negatives"] > 0 and audit["judged"]["test"]["same_query"] == 0
    assert audit["equal_within"] == 0
    suspect = audit["suspects_by_score"][0]
    assert suspect.keys() == {"query", "positive", "negative", "measure", "score", "positive_score"}
    assert suspect["measure"] > 0.5
    above = sum(one["measure"] >= 1 for one in audit["suspects_by_score"])
    assert (audit["at_or_above_positive"] > 0) == (above > 0)
    [estimate] = facts["estimates"]
    assert (
        estimate["held_back"]["queries"]
        == estimate["held_back"]["hidden"]
        == len(
            {line.split("\t")[0] for line in (several / "qrels" / "train.tsv").read_text().splitlines()[1:]}
        )
    )
    assert estimate["bound"] == 0.2 and estimate["sweep"][0]["margin"] is None
    assert estimate["rate"] == estimate["sweep"][0]["rate"]  # this run has no margin
    assert facts["plan"]["queries"] == facts["counts"]["num_queries"]
    page = (out / "mining.html").read_text()
    for part in ("Estimated false-negative rate", "Suspected right answers", "Answers of evaluation queries"):
        assert part in page
    assert "false negatives, by judgements held back" in ran.out


def test_nearly_equal_queries_are_counted_and_shown_with_their_answers(cli, trained):
    # Long enough that two queries which differ in the verb alone are nearly equal.
    path = trained.parent / "beir" / "queries.jsonl"
    queries = [json.loads(line) for line in path.read_text().splitlines()]
    longer = [{**query, "text": f"{query['text']} in a few short lines"} for query in queries]
    path.write_text("".join(json.dumps(query) + "\n" for query in longer))
    ran = cli("mine", trained, "--data", path.parent, "--set", "mining.relative_margin=null")
    assert ran.code == 0, ran.err
    audit = facts_of(trained / "mined")["audit"]
    near, pairs = audit["near_queries"], audit["near_query_pairs"]
    assert near["looked_at"] == 80 and near["queries"] <= 80 and near["negatives"] > 0
    assert near["pairs"] >= len(pairs) == 12
    texts = {query["_id"]: set(query["text"].split()) for query in longer}
    for pair in pairs:
        one, other = texts[pair["query"]], texts[pair["other"]]
        assert pair["measure"] == pytest.approx(len(one & other) / len(one | other)) and one != other
        assert pair["positive"] != pair["other_positive"]
    page = (trained / "mined" / "mining.html").read_text()
    assert "Nearly equal queries with other right answers" in page and "right answer of the second" in page


def test_data_with_one_answer_a_query_says_why_there_is_no_estimate(cli, trained):
    ran = cli("mine", trained)
    assert ran.code == 0 and "no query has two known passages" in ran.out, ran.err
    assert facts_of(trained / "mined")["estimates"] == []
    assert "no query has two known passages" in (trained / "mined" / "mining.html").read_text()


def test_the_plan_of_texts_has_encoding_and_a_dry_run_stops_before_it(cli, trained, tmp_path):
    ran = cli("mine", trained, "--dry-run", "-o", tmp_path / "out")
    assert ran.code == 0 and not (tmp_path / "out").exists(), ran.err
    assert "48 passages of 16 numbers" in ran.out and "encode " in ran.out and "memory about" in ran.out


def test_an_older_table_is_compared_with_and_one_of_other_data_refused(cli, trained, several, tmp_path):
    assert cli("mine", trained).code == 0
    ran = cli("mine", trained, "--against", trained / "mined", "-o", tmp_path / "out")
    assert ran.code == 0 and "shared (100%), 0 new, 0 gone" in ran.out, ran.err
    table = trained / "mined" / "negatives"
    (several / "corpus.jsonl").write_text(
        "".join(line + "\n" for line in (several / "corpus.jsonl").read_text().splitlines())
    )
    other = several.rename(several.with_name("other"))
    ran = cli("mine", trained, "--data", other, "--against", table, "-o", tmp_path / "out")
    assert ran.code == 2 and "give a table of the same data" in ran.err.splitlines()[-1]


def test_the_memory_of_the_search_changes_no_negative(cli, trained, tmp_path):
    for name, arguments in (("one", ()), ("two", ("--memory", "64MiB"))):
        assert cli("mine", trained, "-o", tmp_path / name, *arguments).code == 0
    one, two = ((tmp_path / name / "triplets.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two
    ran = cli("mine", trained, "--memory", "lots")
    assert ran.code == 2 and "memory 'lots' is no size" in ran.line


@pytest.mark.parametrize(
    ("option", "value", "reason"), [("--against", "nowhere", "nowhere"), ("--scores", "teacher", "reranker")]
)
def test_a_plan_refuses_what_the_work_would(cli, trained, option, value, reason):
    ran = cli("mine", trained, "--plan", option, value)
    assert ran.code == 2 and reason in ran.err


@pytest.mark.parametrize(
    ("settings", "removed", "advice"),
    [
        (["mining.max_score=-2"], " max_score; ", "loosen mining.max_score"),
        (
            ["mining.depth=3", "mining.rank_min=1", "mining.margin=3"],
            " margin",
            "set mining.positive to strongest, or raise mining.depth",
        ),
    ],
)
def test_rules_that_leave_nothing_end_in_one_line_that_names_them(
    cli, trained, tmp_path, settings, removed, advice
):
    out = tmp_path / "out"
    ran = cli("mine", trained, "-o", out, *(part for one in settings for part in ("--set", one)))
    assert ran.code == 2 and not out.exists()
    line = ran.err.splitlines()[-1]
    assert line.startswith("error: no negative for any of ") and removed in line and line.endswith(advice)
    candidates = re.search(r" of ([\d,]+) candidates the rules removed: ", line)
    numbers = re.findall(r"(\d[\d,]*) [a-z]", line[candidates.end() :])
    assert sum(int(number.replace(",", "")) for number in numbers) == int(candidates[1].replace(",", ""))
