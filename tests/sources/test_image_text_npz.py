import gzip
import json

import numpy as np
import pytest
from image_text_files import load, named, noise, pictures, png, refusal, split_seeds


def pack(path, seed_list, **arrays):
    files = [png(seed) for seed in seed_list]
    data = np.frombuffer(b"".join(files), dtype=np.uint8)
    np.savez(path, jpeg=data, offsets=np.cumsum([0, *map(len, files)]), **arrays)


def captions(path, rows):
    with gzip.open(path, "wt", encoding="utf8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def test_line_i_belongs_to_image_i(tmp_path):
    pack(tmp_path / "images.npz", [3, 1, 2])
    rows = [
        {"id": "a", "caption": "x", "attributes": ["p", "q"], "split": "train"},
        {"id": "b", "caption": "y", "attributes": ["p", "r"], "split": "test"},
        {"id": "c", "caption": "z", "attributes": ["p"], "split": "train"},
    ]
    captions(tmp_path / "captions.jsonl.gz", rows)
    data = load("image_text_npz", tmp_path, label_column="attributes.1")
    assert pictures(data) == {3: ["x"], 1: ["y"], 2: ["z"]} and data.ids == ["a", "b", "c"]
    assert split_seeds(data) == {"train": [3, 2], "test": [1]} and data.name == tmp_path.name
    assert named(data) == ["q", "r", None]


def test_an_index_names_the_image_of_a_line_and_minus_one_none(tmp_path):
    pack(tmp_path / "images.npz", [3, 1, 2])
    rows = [
        {"image": "two", "captions": ["x", "y"], "index": 2, "split": "train"},
        {"image": "gone", "captions": ["-"], "index": -1, "split": "train"},
        {"image": "none", "captions": ["z"], "index": 1, "split": "none"},
        {"image": "zero", "captions": ["z"], "index": 0, "split": "dev"},
    ]
    captions(tmp_path / "captions.jsonl.gz", rows)
    data = load("image_text_npz", tmp_path / "images.npz")
    assert pictures(data) == {2: ["x", "y"], 3: ["z"]} and split_seeds(data) == {"train": [2], "dev": [3]}
    assert data.made_by["rows_without_image"] == 1 and data.made_by["images_without_split"] == 1


def test_labels_of_the_images_file_are_taken_where_lines_have_none(tmp_path):
    pack(tmp_path / "images.npz", [3, 1, 2], labels=np.array([1, 0, 1]), names=np.array(["no", "yes"]))
    captions(tmp_path / "a.jsonl.gz", [{"caption": "x", "index": 2}, {"caption": "y", "index": 1}])
    captions(tmp_path / "b.jsonl.gz", [{"caption": "x", "index": 2, "label": "other"}])
    data = load("image_text_npz", tmp_path, captions="a.jsonl.gz")
    assert data.ids == ["images/2", "images/1"] and named(data) == ["yes", "no"]
    assert named(load("image_text_npz", tmp_path, captions="b.jsonl.gz")) == ["other"]
    assert "expected one file *.jsonl*, found a.jsonl.gz, b.jsonl.gz; name it in source.captions" in refusal(
        "image_text_npz", tmp_path
    )


def test_arrays_of_pixels_are_read_with_captions_too(tmp_path):
    np.savez(tmp_path / "set.npz", images=np.stack([noise(4), noise(5)]))
    captions(tmp_path / "set.jsonl.gz", [{"caption": "x"}, {"caption": "y"}])
    assert pictures(load("image_text_npz", tmp_path)) == {4: ["x"], 5: ["y"]}


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([{"caption": "x"}], "1 lines for the 2 images of images.npz; without a field 'index'"),
        ([{"caption": "x", "index": 2}], "line 1: index 2; valid are -1 (no image) to 1, the last image of"),
        ([{"caption": "x", "index": 0}, {"caption": "y"}], "line 2: index None; valid are -1"),
        (
            [{"id": "a", "caption": "x", "index": 0}, {"id": "a", "caption": "y", "index": 1}],
            "line 2: 'a' is image 1, but image 0 before",
        ),
    ],
)
def test_a_line_without_a_clear_image_is_named(tmp_path, rows, line):
    pack(tmp_path / "images.npz", [0, 1])
    captions(tmp_path / "captions.jsonl.gz", rows)
    message = refusal("image_text_npz", tmp_path)
    assert line in message and "captions.jsonl.gz" in message


def test_a_folder_without_images_is_one_line(tmp_path):
    assert "expected one file *.npz, found none; name it in source.path" in refusal(
        "image_text_npz", tmp_path
    )
