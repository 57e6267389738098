import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.config import ColumnNames
from retrieval_cl.sources.pairs import read_pairs

ROWS = [
    {"anchor": "a", "positive": "p", "negative_1": "n", "negative_10": "p"},
    {"anchor": "b", "positive": "p", "negative_1": "m", "negative_10": "n"},
    {"anchor": "a", "positive": 'r, "s"\n\tü', "negative_1": "m", "negative_10": "r"},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_separated(path, rows, delimiter):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf8", newline="") as stream:
        writer = csv.DictWriter(stream, names, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_csv(path, rows):
    return write_separated(path, rows, ",")


def write_tsv(path, rows):
    return write_separated(path, rows, "\t")


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


WRITERS = {"jsonl": write_jsonl, "csv": write_csv, "tsv": write_tsv, "parquet": write_parquet}


def refusal(path, columns=None) -> str:
    with pytest.raises(InputError) as caught:
        read_pairs(path, columns=columns)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def positives(data, split="train"):
    """Query text -> its positives' texts, the slow way."""
    found = {}
    qrels = data.splits[split]
    for query, passage in zip(qrels.queries.tolist(), qrels.passages.tolist(), strict=True):
        found.setdefault(data.queries.texts[query], set()).add(data.passages.texts[passage])
    return found


def negatives(data):
    given = data.given_negatives
    return {
        text: {data.passages.texts[passage] for passage in given[row]}
        for row, text in enumerate(data.queries.texts)
        if len(given[row])
    }


@pytest.mark.parametrize("suffix", WRITERS)
def test_equal_anchors_and_passages_become_one_in_every_format(tmp_path, suffix):
    data = read_pairs(WRITERS[suffix](tmp_path / f"pairs.{suffix}", ROWS))
    assert data.name == "pairs" and list(data.splits) == ["train"]
    assert positives(data) == {"a": {"p", ROWS[2]["positive"]}, "b": {"p"}}
    assert data.queries.texts == ["a", "b"] and sorted(data.passages.texts) == sorted(
        ["p", "n", "m", "r", ROWS[2]["positive"]]
    )
    assert len(set(data.passages.ids)) == 5


def test_a_negative_that_is_a_positive_is_dropped_and_counted(tmp_path):
    data = read_pairs(write_jsonl(tmp_path / "pairs.jsonl", ROWS))
    assert negatives(data) == {"a": {"n", "m", "r"}, "b": {"m", "n"}}
    assert data.made_by["negatives_that_are_positives"] == 1


def test_packed_jsonl_and_csv_read_as_plain_ones(tmp_path):
    for suffix in ("jsonl", "csv"):
        path = WRITERS[suffix](tmp_path / f"plain.{suffix}", ROWS)
        packed = tmp_path / f"packed.{suffix}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert positives(read_pairs(packed)) == positives(read_pairs(path))
        assert read_pairs(packed).name == "packed"


def test_ids_depend_on_the_texts_alone(tmp_path):
    one = read_pairs(write_jsonl(tmp_path / "one.jsonl", ROWS))
    two = read_pairs(write_jsonl(tmp_path / "two.jsonl", ROWS[::-1]))
    assert one.passages.ids != two.passages.ids
    for mine, theirs in [(one.passages, two.passages), (one.queries, two.queries)]:
        assert dict(zip(mine.ids, mine.texts, strict=True)) == dict(
            zip(theirs.ids, theirs.texts, strict=True)
        )


def test_columns_query_and_passage_are_understood(tmp_path):
    data = read_pairs(write_csv(tmp_path / "pairs.csv", [{"query": "a", "passage": "p"}]))
    assert positives(data) == {"a": {"p"}} and data.given_negatives is None


def test_columns_can_be_named(tmp_path):
    path = write_jsonl(tmp_path / "pairs.jsonl", [{"q": "a", "d": ["p", "r"], "bad": "n", "part": "test"}])
    names = ColumnNames(anchor="q", positive="d", negatives=("bad",), split="part")
    data = read_pairs(path, columns=names)
    assert positives(data, "test") == {"a": {"p", "r"}} and negatives(data) == {"a": {"n"}}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_lists_of_positives_and_negatives_are_taken_apart(tmp_path, suffix):
    rows = [
        {"anchor": "a", "positive": ["p", "r"], "negative": ["n", "m"]},
        {"anchor": "b", "positive": ["p"], "negative": []},
    ]
    data = read_pairs(WRITERS[suffix](tmp_path / f"pairs.{suffix}", rows))
    assert positives(data) == {"a": {"p", "r"}, "b": {"p"}} and negatives(data) == {"a": {"n", "m"}}


@pytest.mark.parametrize("suffix", WRITERS)
def test_absent_negatives_are_no_negatives(tmp_path, suffix):
    rows = [
        {"anchor": "a", "positive": "p", "negative": "n"},
        {"anchor": "b", "positive": "p", "negative": None},
    ]
    data = read_pairs(WRITERS[suffix](tmp_path / f"pairs.{suffix}", rows))
    assert negatives(data) == {"a": {"n"}}


def test_split_column_decides_each_rows_split(tmp_path):
    rows = [
        {"anchor": name, "positive": "p", "split": split}
        for name, split in zip("abc", ["test", "train", "validation"], strict=True)
    ]
    data = read_pairs(write_csv(tmp_path / "pairs.csv", rows))
    assert {split: positives(data, split) for split in data.splits} == {
        "train": {"b": {"p"}},
        "dev": {"c": {"p"}},
        "test": {"a": {"p"}},
    }
    assert list(data.splits) == ["train", "dev", "test"]


def test_folder_gives_a_split_for_each_file(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    write_csv(folder / "test.csv", [{"anchor": "t", "positive": "p"}])
    write_jsonl(folder / "train-00000-of-00002.jsonl", [{"anchor": "a", "positive": "p"}])
    write_jsonl(folder / "train-00001-of-00002.jsonl", [{"anchor": "b", "positive": "p"}])
    (folder / "README.md").write_text("not data")
    data = read_pairs(folder)
    assert data.name == "set" and data.passages.texts == ["p"]
    assert positives(data) == {"a": {"p"}, "b": {"p"}} and positives(data, "test") == {"t": {"p"}}


def test_file_of_no_split_in_a_folder_is_refused(tmp_path):
    write_csv(tmp_path / "extra.csv", [{"anchor": "t", "positive": "p"}])
    assert refusal(tmp_path).startswith(f"{tmp_path / 'extra.csv'}: ") and "train, dev, test" in refusal(
        tmp_path
    )


def test_folder_without_pairs_is_refused(tmp_path):
    assert refusal(tmp_path).startswith(f"{tmp_path}: no file of pairs here")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_missing_file_is_named(tmp_path, suffix):
    path = tmp_path / f"pairs.{suffix}"
    assert refusal(path) == f"{path}: no such file"


def test_unknown_kind_of_file_lists_those_we_read(tmp_path):
    assert "valid are .jsonl, .csv, .tsv, .parquet" in refusal(tmp_path / "pairs.xlsx")


@pytest.mark.parametrize("suffix", WRITERS)
def test_missing_column_lists_the_columns_there_are(tmp_path, suffix):
    path = WRITERS[suffix](tmp_path / f"pairs.{suffix}", [{"anchor": "a", "positve": "p"}])
    assert refusal(path) == (
        f"{path}: no column 'positive' or 'passage'; columns are anchor, positve. Set source.columns.positive"
    )


@pytest.mark.parametrize("key", ["anchor", "positive", "split", "negatives"])
def test_missing_named_column_offers_the_nearest(tmp_path, key):
    path = write_jsonl(tmp_path / "pairs.jsonl", [{"anchor": "a", "positive": "p", "column_x": "z"}])
    names = ColumnNames(**{key: ("colum_x",) if key == "negatives" else "colum_x"})
    assert "no column 'colum_x'; columns are anchor, positive, column_x; did you mean 'column_x'?" in refusal(
        path, names
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"anchor": "b", "positive": ""}, "the anchor has no positive"),
        ({"anchor": "b", "positive": []}, "the anchor has no positive"),
        ({"anchor": "b", "negative": "n"}, "the anchor has no positive"),
        ({"anchor": "b", "positive": " "}, "empty text in column 'positive'"),
        ({"anchor": "b", "positive": ["p", ""]}, "empty text in column 'positive'"),
        ({"anchor": " ", "positive": "p"}, "empty text in column 'anchor'"),
        ({"positive": "p"}, "no value in column 'anchor'"),
        (
            {"anchor": "b", "positive": "p", "split": "trian"},
            "unknown split 'trian'; valid are train, dev, test, ",
        ),
        ({"anchor": 5, "positive": "p"}, "column 'anchor' must be a string, got int 5"),
        ({"anchor": "b", "positive": 5}, "column 'positive' must be a string, got int 5"),
        (
            {"anchor": "b", "positive": "p", "negative": {"x": 1}},
            "column 'negative' must be a string, got dict",
        ),
    ],
)
def test_bad_row_is_refused_with_file_and_line(tmp_path, row, said):
    path = write_jsonl(
        tmp_path / "pairs.jsonl",
        [{"anchor": "a", "positive": "p", "split": "train"}, {"split": "train", **row}],
    )
    message = refusal(path)
    assert message.startswith(f"{path}, line 2: ") and said in message


def test_bad_row_of_a_parquet_file_is_named_by_its_row(tmp_path):
    path = write_parquet(
        tmp_path / "pairs.parquet", [{"anchor": "a", "positive": "p"}, {"anchor": "b", "positive": None}]
    )
    assert refusal(path).startswith(f"{path}, row 2: the anchor has no positive")


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("anchor,positive\na,p\nb\n", "line 3", "1 columns, the header has 2: anchor, positive"),
        ('anchor,positive\n"a\nb",p\nc,p,q\n', "line 4", "3 columns"),
        ('anchor,positive\n"a\nb",\n', "line 2", "the anchor has no positive"),
        ('anchor,positive\na,p\nb,"p\nc,p\n', "line 3", "broken quoting"),
        ('anchor,positive\n"a"x,p\n', "line 2", "broken quoting"),
        ("anchor,anchor\na,p\n", "line 1", "column names must differ"),
    ],
)
def test_bad_csv_is_refused_with_file_and_line(tmp_path, text, place, said):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    message = refusal(path)
    assert message.startswith(f"{path}, {place}: ") and said in message


def test_long_cells_are_read_and_the_limit_of_the_csv_module_is_left_alone(tmp_path):
    limit = csv.field_size_limit()
    data = read_pairs(write_csv(tmp_path / "pairs.csv", [{"anchor": "a", "positive": "p" * 200_000}]))
    assert len(data.passages.texts[0]) == 200_000 and csv.field_size_limit() == limit


def test_broken_parquet_is_refused_with_its_name(tmp_path):
    path = tmp_path / "pairs.parquet"
    path.write_bytes(b"PAR1 no table")
    assert refusal(path).startswith(f"{path}: no readable Parquet file: ")


@pytest.mark.parametrize(("suffix", "text"), [("jsonl", ""), ("csv", ""), ("csv", "anchor,positive\n")])
def test_file_without_rows_is_refused(tmp_path, suffix, text):
    path = tmp_path / f"pairs.{suffix}"
    path.write_text(text)
    assert refusal(path) == f"{path}: no rows"
