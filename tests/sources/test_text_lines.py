import gzip

import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.lines import read_jsonl, read_text


def refusal(action) -> str:
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_file_is_named(tmp_path):
    assert refusal(lambda: read_jsonl(tmp_path / "a.jsonl")) == f"{tmp_path / 'a.jsonl'}: no such file"


def test_broken_json_names_file_and_line_counting_blank_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2\n')
    assert refusal(lambda: read_jsonl(path)).startswith(f"{path}, line 3: broken JSON: ")


def test_a_line_that_is_no_object_names_file_and_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n[1, 2]\n')
    assert refusal(lambda: read_jsonl(path)).startswith(f"{path}, line 2: expected a JSON object")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_broken_utf8_names_file_and_line(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    data = b'{"a": "x"}\n{"a": "caf\xe9"}\n'
    path.write_bytes(gzip.compress(data) if suffix else data)
    assert refusal(lambda: read_jsonl(path)) == f"{path}, line 2: not UTF-8 (byte 0xe9)"


# Compressed with a fixed time: processes that share the tests must all give them the same names.
@pytest.mark.parametrize(
    "data", [b"no gzip at all", gzip.compress(b"cut off" * 50, mtime=0)[:-12]], ids=["no gzip", "cut off"]
)
def test_broken_gzip_is_refused_with_its_name(tmp_path, data):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(data)
    assert refusal(lambda: read_text(path)).startswith(f"{path}: broken gzip file")


def test_folder_in_place_of_a_file_is_refused_with_its_name(tmp_path):
    assert refusal(lambda: read_text(tmp_path)).startswith(f"{tmp_path}: cannot be read")


def test_line_separators_inside_strings_do_not_cut_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    text = "one\u2028two\u0085three\x0cfour"
    path.write_bytes(f'{{"a": "{text.replace(chr(12), "")}"}}\r\n{{"a": "b"}}'.encode())
    records = read_jsonl(path)
    assert [row["a"] for row in records.rows] == ["one\u2028two\u0085threefour", "b"]
    assert records.place(1) == f"{path}, line 2"


def test_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert read_jsonl(path).rows == [{"a": 1}]
