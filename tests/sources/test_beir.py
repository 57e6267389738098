import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import read_manifest
from retrieval_cl.core.relations import Ragged
from retrieval_cl.sources.beir import read_beir, write_beir
from retrieval_cl.sources.records import Qrels, RetrievalData, Texts

CORPUS = [
    {"_id": "d1", "title": "One", "text": "the first"},
    {"_id": "d2", "title": "", "text": "  the second"},
    {"_id": 3, "text": "the third"},
]
QUERIES = [{"_id": "q1", "text": "which is first"}, {"_id": 2, "text": "which is third"}]
HEADER = "query-id\tcorpus-id\tscore\n"


def write_folder(folder, *, corpus=CORPUS, queries=QUERIES, **qrels):
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    for split, text in (qrels or {"test": HEADER + "q1\td1\t1\n2\t3\t2\n"}).items():
        (folder / "qrels" / f"{split}.tsv").write_text(text)
    return folder


def triples(qrels):
    return list(zip(qrels.queries.tolist(), qrels.passages.tolist(), qrels.grades.tolist(), strict=True))


def refusal(folder, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_beir(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_keep_the_order_and_the_text_of_the_files(tmp_path):
    data = read_beir(write_folder(tmp_path / "set"))
    assert data.name == "set"
    assert data.passages.ids == ["d1", "d2", "3"]
    assert data.passages.texts == ["the first", "  the second", "the third"]
    assert data.passages.titles == ["One", "", ""]
    assert data.queries.ids == ["q1", "2"]
    assert triples(data.splits["test"]) == [(0, 0, 1), (1, 2, 2)]
    assert data.equal is None and data.given_negatives is None


def test_packed_files_read_as_plain_ones(tmp_path):
    plain = read_beir(write_folder(tmp_path / "plain"))
    folder = write_folder(tmp_path / "packed")
    for path in [folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "test.tsv"]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = read_beir(folder)
    assert packed.passages.texts == plain.passages.texts and packed.queries.texts == plain.queries.texts
    assert triples(packed.splits["test"]) == triples(plain.splits["test"])


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "q1\td1\t1\n2\t3\t2\n",
        "q1\td1\t1\n2\t3\t2\n",
        "2\t3\t2.0\r\nq1\td1\t1\r\n",
        "q1 0 d1 1\n2 Q0 3 2\n",
        "q1\t0\td1\t1\n2\t0\t3\t2",
        "qid iter docno rel\nq1 0 d1 1\n\n2 0 3 2\n",
        "q1\td1\t1\nq1\td1\t1\n2\t3\t2\n",
    ],
)
def test_header_or_none_and_three_or_four_columns_give_the_same_judgements(tmp_path, text):
    data = read_beir(write_folder(tmp_path / "set", test=text))
    assert triples(data.splits["test"]) == [(0, 0, 1), (1, 2, 2)]


def test_grades_below_one_are_kept_but_are_not_relevant(tmp_path):
    data = read_beir(write_folder(tmp_path / "set", test="q1\td1\t0\nq1\td2\t3\n2\t3\t-1\n"))
    assert triples(data.splits["test"]) == [(0, 0, 0), (0, 1, 3), (1, 2, -1)]
    assert data.splits["test"].judged_queries.tolist() == [0]


def test_title_alone_becomes_the_text(tmp_path):
    corpus = [{"_id": "d1", "title": "One", "text": " "}, *CORPUS[1:]]
    data = read_beir(write_folder(tmp_path / "set", corpus=corpus))
    assert data.passages.texts[0] == "One" and data.passages.full()[0] == "One"


def test_splits_come_in_the_usual_order_and_validation_is_dev(tmp_path):
    text = "q1\td1\t1\n"
    folder = write_folder(tmp_path / "set", test=text, validation=text, train=text, hard=text)
    assert list(read_beir(folder).splits) == ["train", "dev", "test", "hard"]
    assert list(read_beir(folder, splits=["test", "train"]).splits) == ["train", "test"]


def test_equal_passages_are_closed_over_chains(tmp_path):
    corpus = [{"_id": f"d{i}", "text": f"text {i}"} for i in range(6)]
    folder = write_folder(tmp_path / "set", corpus=corpus, test="q1\td1\t1\n")
    (folder / "equal.tsv").write_text("d4\td1\nd1\td3\nd5\td5\n")
    equal = read_beir(folder).equal
    members = [equal[row].tolist() for row in range(6)]
    assert members == [[0], [1, 3, 4], [2], [1, 3, 4], [1, 3, 4], [5]]


@pytest.fixture
def everything() -> RetrievalData:
    return RetrievalData(
        name="every thing",
        passages=Texts(["a b", "#1", "c"], ["ün\u2028ï", "two\r\nlines", "c"], ["t", "", ""]),
        queries=Texts(["q", "r"], ["what?", "why\t?"]),
        splits={
            "train": Qrels(np.array([0]), np.array([1]), np.array([2])),
            "test": Qrels(np.array([1, 1]), np.array([0, 2]), np.array([1, 0])),
        },
        equal=Ragged.from_lists([[0, 2], [1], [0, 2]]),
        given_negatives=Ragged.from_lists([[0, 2], []]),
        made_by={"source": "test", "versions": {"x": "1.0"}},
    )


def test_written_folder_reads_back_the_same(tmp_path, everything):
    write_beir(everything, tmp_path / "set", seed=3)
    data = read_beir(tmp_path / "set")
    assert (data.name, data.made_by) == (everything.name, everything.made_by)
    for mine, theirs in [(data.passages, everything.passages), (data.queries, everything.queries)]:
        assert (mine.ids, mine.texts, mine.titles) == (theirs.ids, theirs.texts, theirs.titles)
    assert {name: triples(qrels) for name, qrels in data.splits.items()} == {
        name: triples(qrels) for name, qrels in everything.splits.items()
    }
    for mine, theirs in [
        (data.equal, everything.equal),
        (data.given_negatives, everything.given_negatives),
    ]:
        assert mine.offsets.tolist() == theirs.offsets.tolist()
        assert mine.values.tolist() == theirs.values.tolist()
    manifest = read_manifest(tmp_path / "set", "beir")
    assert manifest["seed"] == 3 and manifest["num_passages"] == 3
    assert manifest["num_judgements"] == {"train": 1, "test": 2}


def test_equal_data_gives_equal_bytes(tmp_path, everything):
    for name in ("one", "two"):
        write_beir(everything, tmp_path / name)
    one, two = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in sorted((tmp_path / name).rglob("*"))
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert len(one) == 7 and one == two


def test_full_disk_leaves_the_old_folder_whole(tmp_path, everything, monkeypatch):
    folder = tmp_path / "set"
    write_beir(everything, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retrieval_cl.sources.beir.hash_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_beir(everything, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_id_with_a_tab_is_not_written(tmp_path, everything):
    everything.queries.ids[0] = "q\t1"
    with pytest.raises(InputError, match="holds a tab"):
        write_beir(everything, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_missing_folder_is_named(tmp_path):
    assert refusal(tmp_path / "none").startswith(f"{tmp_path / 'none'}: no such folder")


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_missing_file_is_named(tmp_path, name):
    folder = write_folder(tmp_path / "set")
    (folder / name).unlink()
    assert refusal(folder) == f"{folder}: no file {name} or {name}.gz"


def test_plain_beside_packed_is_refused(tmp_path):
    folder = write_folder(tmp_path / "set")
    (folder / "corpus.jsonl.gz").write_bytes(b"")
    assert "both corpus.jsonl and corpus.jsonl.gz" in refusal(folder)


def test_missing_split_lists_those_there_are(tmp_path):
    folder = write_folder(tmp_path / "set")
    assert "no split 'tets'; it has test; did you mean 'test'?" in refusal(folder, splits=["tets"])


def test_no_qrels_at_all_is_refused(tmp_path):
    folder = write_folder(tmp_path / "set")
    (folder / "qrels" / "test.tsv").unlink()
    assert "no judgements" in refusal(folder)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"_id": "d9", "title": "", "text": " \n"}, "empty text"),
        ({"_id": "d9", "title": "t"}, "no value in column 'text'; columns found: _id, title"),
        ({"text": "x"}, "no value in column '_id'; columns found: text"),
        ({"_id": "", "text": "x"}, "empty text in column '_id'"),
        ({"_id": True, "text": "x"}, "column '_id' must be a string, got bool True"),
        ({"_id": "d9", "text": 7}, "column 'text' must be a string, got int 7"),
        ({"_id": "d9", "text": "\ud800"}, "half a surrogate pair"),
        ({"_id": "d1", "text": "x"}, "id 'd1' stands twice, first in line 1"),
        ({"_id": "3", "text": "x"}, "id '3' stands twice, first in line 3"),
    ],
)
def test_bad_passage_is_refused_with_file_and_line(tmp_path, row, said):
    folder = write_folder(tmp_path / "set", corpus=[*CORPUS, row])
    message = refusal(folder)
    assert message.startswith(f"{folder / 'corpus.jsonl'}, line 4: ") and said in message


def test_duplicate_query_is_refused_with_file_and_line(tmp_path):
    folder = write_folder(tmp_path / "set", queries=[*QUERIES, QUERIES[0]])
    assert refusal(folder) == f"{folder / 'queries.jsonl'}, line 3: id 'q1' stands twice, first in line 1"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("qx\td1\t1", "unknown query id 'qx'"),
        ("q1\tdx\t1", "unknown passage id 'dx'"),
        ("q1\td1\t0.5", "grade '0.5' is no whole number"),
        ("q1\td1\tnan", "grade 'nan' is no whole number"),
        ("q1\td1\t1e300", "grade '1e300' is no whole number"),
        ("q1\td1\t", "grade '' is no whole number"),
        ("q1\td1", "2 columns, the lines above have 3"),
        ("q1", "1 columns, the lines above have 3"),
        ("q1\t0\td1\t1", "4 columns, the lines above have 3"),
        ("q1\td2\t2", "grade 2 for a pair that has grade 1 in line 2"),
    ],
)
def test_bad_judgement_is_refused_with_file_and_line(tmp_path, line, said):
    folder = write_folder(tmp_path / "set", test=HEADER + f"q1\td2\t1\n{line}\n")
    message = refusal(folder)
    assert message.startswith(f"{folder / 'qrels' / 'test.tsv'}, line 3: ") and said in message


@pytest.mark.parametrize(
    ("line", "said"),
    [("q1\td1\tyes", "grade 'yes'"), ("qx\tdx\t1", "unknown query id 'qx'"), ("q1\t1", "2 columns")],
)
def test_a_broken_first_line_is_not_taken_for_a_header(tmp_path, line, said):
    folder = write_folder(tmp_path / "set", test=f"{line}\nq1\td2\t1\n")
    message = refusal(folder)
    assert message.startswith(f"{folder / 'qrels' / 'test.tsv'}, line 1: ") and said in message


@pytest.mark.parametrize("text", ["", HEADER, HEADER + "q1\td1\t0\n"])
def test_split_without_a_relevant_pair_is_refused(tmp_path, text):
    folder = write_folder(tmp_path / "set", test=text)
    assert refusal(folder).startswith(f"{folder / 'qrels' / 'test.tsv'}: no relevant pair")


@pytest.mark.parametrize(("line", "said"), [("d1\tdx", "unknown passage id 'dx'"), ("d1", "1 columns")])
def test_bad_line_of_equal_passages_is_refused_with_file_and_line(tmp_path, line, said):
    folder = write_folder(tmp_path / "set")
    (folder / "equal.tsv").write_text(f"d1\td2\n{line}\n")
    message = refusal(folder)
    assert message.startswith(f"{folder / 'equal.tsv'}, line 2: ") and said in message


def test_empty_corpus_is_refused(tmp_path):
    folder = write_folder(tmp_path / "set", corpus=[])
    assert refusal(folder) == f"{folder / 'corpus.jsonl'}: no lines"


TIMED = """
import sys, time
from pathlib import Path
from retrieval_cl.sources.beir import read_beir
start = time.process_time()
num = len(read_beir(Path(sys.argv[1])).passages)
print(num, time.process_time() - start)
"""


def test_sixty_thousand_passages_are_read_within_two_seconds(tmp_path):
    num = 60_000
    folder = write_folder(
        tmp_path / "large",
        corpus=[
            {"_id": f"p{i}", "title": f"title {i}", "text": f"{i} " + "some words " * 40} for i in range(num)
        ],
        queries=[{"_id": f"q{i}", "text": f"query {i}"} for i in range(num)],
        test=HEADER + "".join(f"q{i}\tp{i}\t1\n" for i in range(num)),
    )
    # In a process of its own: here every call into the package pays for the check of its shapes.
    done = subprocess.run(
        [sys.executable, "-c", TIMED, str(folder)], capture_output=True, text=True, check=True
    )
    read, seconds = done.stdout.split()
    assert int(read) == num
    assert float(seconds) < 2


@pytest.mark.parametrize(
    ("name", "passages", "queries"),
    [("pubmedqa", 1000, {"train": 500, "test": 500}), ("cacm", 3204, {"test": 52})],
)
def test_real_set_has_its_published_counts(shared_data, name, passages, queries):
    data = read_beir(shared_data(name))
    assert len(data.passages) == passages
    assert {split: len(qrels.judged_queries) for split, qrels in data.splits.items()} == queries
