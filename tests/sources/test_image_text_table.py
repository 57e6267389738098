import csv
import gzip
import io
import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_text_files import load, named, noise, pictures, png, refusal, seeds, split_seeds
from PIL import Image


def images(folder, count=4):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        (folder / f"{seed}.png").write_bytes(png(seed))


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


def separated(path, rows, delimiter):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize(("name", "delimiter"), [("set.csv", ","), ("set.tsv", "\t"), ("set.csv.gz", ",")])
def test_rows_that_name_one_image_give_it_several_captions(tmp_path, name, delimiter):
    images(tmp_path)
    rows = [
        {"filepath": "1.png", "title": "a  red,\n one "},
        {"filepath": "0.png", "title": "zero"},
        {"filepath": "1.png", "title": "the second"},
        {"filepath": "1.png", "title": "a red, one"},
        {"filepath": "0.png", "title": " "},
    ]
    data = load("image_text_table", separated(tmp_path / name, rows, delimiter))
    assert pictures(data) == {1: ["a red, one", "the second"], 0: ["zero"]}
    assert data.ids == ["1.png", "0.png"] and data.caption_images.tolist() == [0, 0, 1]
    assert data.made_by["repeated_captions"] == 1 and data.made_by["empty_captions"] == 1
    assert data.name == "set"


def test_captions_are_a_string_or_a_list_or_stand_in_several_columns(tmp_path):
    images(tmp_path / "pictures")
    rows = [
        {"image": "0.png", "caption": "short", "alt": ["a", "b"], "meta": {"kind": "x"}, "split": "train"},
        {"image": "1.png", "caption": "other", "alt": None, "meta": {"kind": "y"}, "split": "validation"},
        {"image": "2.png", "caption": "third", "meta": {}, "split": "test"},
        {"image": "3.png", "caption": "fourth", "split": "none"},
    ]
    data = load(
        "image_text_table",
        jsonl(tmp_path / "set.jsonl", rows),
        image_root=str(tmp_path / "pictures"),
        caption_columns=["caption", "alt"],
        label_column="meta.kind",
    )
    assert pictures(data) == {0: ["short", "a", "b"], 1: ["other"], 2: ["third"]}
    assert split_seeds(data) == {"train": [0], "dev": [1], "test": [2]}
    assert data.classes == ("x", "y") and named(data) == ["x", "y", None]
    assert data.made_by["images_without_split"] == 1


def test_a_folder_of_tables_named_by_split_gives_splits(tmp_path):
    images(tmp_path / "img")
    for split, seed in (("train", 0), ("val", 1)):
        jsonl(tmp_path / f"{split}.jsonl", [{"path": f"img/{seed}.png", "text": split, "label": seed}])
    data = load("image_text_table", tmp_path)
    assert split_seeds(data) == {"train": [0], "dev": [1]} and data.labels.tolist() == [0, 1]


def test_broken_and_missing_images_and_missing_captions_are_named_and_counted(tmp_path):
    images(tmp_path)
    (tmp_path / "1.png").write_bytes(png(1)[:40])
    rows = [{"image": f"{seed}.png", "caption": "" if seed == 2 else f"c{seed}"} for seed in (0, 1, 2, 3)]
    rows += [{"image": "gone.png", "caption": "x"}, {"image": "", "caption": "y"}]
    table = jsonl(tmp_path / "set.jsonl", rows)
    data = load("image_text_table", table, max_broken=4)
    assert pictures(data) == {0: ["c0"], 3: ["c3"]}
    broken = data.made_by["broken"]
    assert broken["2.png"] == "no caption" and broken["gone.png"] == "no such file"
    assert broken[f"{table}, line 6"] == "no image in this row" and set(broken) >= {"1.png"}
    assert len(broken) == 4
    line = refusal("image_text_table", table, max_broken=3)
    assert line.startswith("4 broken or missing images, source.max_broken is 3: '2.png': no caption; ")


@pytest.mark.parametrize(
    ("rows", "options", "line"),
    [
        ([{"image": "0.png", "caption": 5}], {}, "line 1: column 'caption' must be a string, got int 5"),
        ([{"image": "0.png", "caption": ["a", None, 2.5]}], {}, "line 1: column 'caption' must be a string"),
        ([{"image": "0.png", "words": "a"}], {}, "no column 'caption' or 'captions' or 'text' or 'texts' or"),
        ([{"file": "0.png", "caption": "a"}], {}, "no column 'image' or 'img'"),
        (
            [{"image": "0.png", "caption": "a", "split": "tset"}],
            {},
            "line 1: unknown split 'tset'; valid are",
        ),
        (
            [{"image": "0.png", "caption": "a", "label": [1]}],
            {},
            "line 1: class in 'label' must be a string or whole number, got list [1]",
        ),
        (
            [{"image": "0.png", "caption": "a"}],
            {"label_column": "kind.2"},
            "no column 'kind'; columns are image",
        ),
        (
            [
                {"image": "0.png", "caption": "a", "split": "train"},
                {"image": "0.png", "caption": "b", "split": "test"},
            ],
            {},
            "line 2: image '0.png' has split 'test', but 'train' in line 1",
        ),
        (
            [
                {"image": "0.png", "caption": "a", "label": "x"},
                {"image": "0.png", "caption": "b", "label": "y"},
            ],
            {},
            "line 2: image '0.png' has class 'y', but 'x' in line 1",
        ),
    ],
)
def test_what_is_wrong_in_a_table_is_named_by_file_and_line(tmp_path, rows, options, line):
    images(tmp_path, 1)
    table = jsonl(tmp_path / "set.jsonl", rows)
    message = refusal("image_text_table", table, **options)
    assert line in message and message.startswith(str(table))


def test_a_table_whose_images_are_all_missing_is_one_line(tmp_path):
    table = jsonl(tmp_path / "set.jsonl", [{"image": "gone.png", "caption": "a"}])
    assert "gone.png': no such file" in refusal("image_text_table", table, size=8, max_broken=3)


def test_parquet_holds_paths_or_encoded_images(tmp_path):
    images(tmp_path)
    pq.write_table(
        pa.table({"image": ["0.png", "1.png", "0.png"], "caption": ["a", "b", "c"]}), tmp_path / "p.parquet"
    )
    assert pictures(load("image_text_table", tmp_path / "p.parquet")) == {0: ["a", "c"], 1: ["b"]}
    table = pa.table(
        {
            "jpeg": [png(5), png(6), None, png(7)],
            "captions": [["a", "b"], ["c"], ["d"], []],
            "split": ["train", "test", "train", "train"],
        }
    )
    pq.write_table(table, tmp_path / "e.parquet", row_group_size=2)
    data = load("image_text_table", tmp_path / "e.parquet")
    assert pictures(data) == {5: ["a", "b"], 6: ["c"]} and split_seeds(data) == {"train": [5], "test": [6]}
    assert data.made_by["broken"] == {"e/2": "no image in this row", "e/3": "no caption"}
    assert "set source.stream to false" in refusal(
        "image_text_table", tmp_path / "e.parquet", stream=True, size=6
    )


def test_parquet_of_datasets_gives_the_names_of_its_classes(tmp_path):
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
        }
    )
    rows = {
        "image": [Image.fromarray(noise(seed)) for seed in (1, 2)],
        "caption": ["a", "b"],
        "label": [1, 0],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set.parquet")
    data = load("image_text_table", tmp_path / "set.parquet")
    assert data.classes == ("no", "yes") and named(data) == ["yes", "no"] and seeds(data) == [1, 2]


def test_images_kept_in_a_folder_are_found_again_and_made_anew_when_a_file_changes(tmp_path):
    images(tmp_path / "img")
    table = jsonl(
        tmp_path / "set.jsonl", [{"image": f"img/{seed}.png", "caption": str(seed)} for seed in range(3)]
    )
    options = {"cache_dir": str(tmp_path / "kept"), "memory_gb": 1e-9}
    assert pictures(load("image_text_table", table, **options)) == {0: ["0"], 1: ["1"], 2: ["2"]}
    assert isinstance(load("image_text_table", table, **options).images.pixels, np.memmap)
    (tmp_path / "img" / "1.png").write_bytes(png(17))
    assert pictures(load("image_text_table", table, **options)) == {0: ["0"], 17: ["1"], 2: ["2"]}


def test_captions_of_given_images_come_in_order_whatever_the_order_asked(tmp_path):
    images(tmp_path)
    rows = [
        {"image": f"{seed}.png", "captions": [f"{seed}{i}" for i in range(seed + 1)]} for seed in range(4)
    ]
    data = load("image_text_table", jsonl(tmp_path / "set.jsonl", rows))
    assert [data.captions[i] for i in data.captions_of(np.array([2, 0]))] == ["00", "20", "21", "22"]
    assert data.captions_of(np.zeros(0, dtype=np.int64)).tolist() == []
