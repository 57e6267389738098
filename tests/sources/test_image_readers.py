import io
import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.images.config import ImageSourceConfig
from retrieval_cl.sources.images.load import load_images


@pytest.fixture(autouse=True)
def quiet_and_offline(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def noise(seed, shape=(4, 6, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(seed):
    stream = io.BytesIO()
    Image.fromarray(noise(seed)).save(stream, "PNG")
    return stream.getvalue()


def write(folder, names):
    """Writes image i of `names` with the pixels of seed i."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(seed))


def load(kind, path, **options):
    return load_images(ImageSourceConfig(kind=kind, path=str(path), **({"test_share": 0.0} | options)))


def refusal(kind, path, **options):
    with pytest.raises(InputError) as caught:
        load(kind, path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def seeds(data, rows=None):
    """Which of the seeded images each row shows."""
    pixels = data.images.take(np.arange(len(data.images)) if rows is None else rows)
    known = {noise(seed).tobytes(): seed for seed in range(30)}
    return [known[image.permute(1, 2, 0).numpy().tobytes()] for image in pixels]


def named(data):
    return [data.classes[label] if label >= 0 else None for label in data.labels]


def test_class_folders_give_labels_by_name(tmp_path):
    write(tmp_path, ["dog/1.png", "cat/2.png", "dog/deeper/3.PNG", ".hidden/4.png", "cat/._2.png"])
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    data = load("image_folder", tmp_path)
    assert data.ids == ["cat/2.png", "dog/1.png", "dog/deeper/3.PNG"] and seeds(data) == [1, 0, 2]
    assert data.classes == ("cat", "dog") and named(data) == ["cat", "dog", "dog"]
    assert data.splits["train"].tolist() == [0, 1, 2] and data.name == tmp_path.name


def test_a_flat_folder_has_no_labels(tmp_path):
    write(tmp_path, ["b.png", "a.png"])
    data = load("image_folder", tmp_path)
    assert data.labels is None and data.classes == () and seeds(data) == [1, 0]


@pytest.mark.parametrize("labelled", [True, False])
def test_split_folders_are_recognised(tmp_path, labelled):
    names = ["train/x/1.png", "Test/y/1.png", "val/x/1.png", "train/y/2.png"]
    write(tmp_path, names if labelled else [name.replace("/x/", "/").replace("/y/", "/") for name in names])
    data = load("image_folder", tmp_path)
    found = {split: seeds(data, rows) for split, rows in data.splits.items()}
    assert found == {"train": [0, 3], "dev": [2], "test": [1]}
    assert data.classes == (("x", "y") if labelled else ())


def test_an_image_without_a_clear_place_is_named(tmp_path):
    write(tmp_path, ["cat/1.png", "2.png"])
    assert "image '2.png' lies beside class folders" in refusal("image_folder", tmp_path)
    write(tmp_path, ["train/1.png"])
    assert "'cat' lies beside the split folder 'train'" in refusal("image_folder", tmp_path)
    assert "no such folder of images" in refusal("image_folder", tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "no image here; read are .jpg, " in refusal("image_folder", tmp_path / "empty")


def test_broken_files_are_left_out_and_named(tmp_path):
    write(tmp_path, ["cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"])
    (tmp_path / "cat" / "2.png").write_bytes(b"")
    data = load("image_folder", tmp_path)
    assert data.ids == ["cat/1.png", "dog/3.png", "dog/4.png"] and seeds(data) == [0, 2, 3]
    assert named(data) == ["cat", "dog", "dog"] and data.splits["train"].tolist() == [0, 1, 2]
    assert data.made_by["broken"] == {"cat/2.png": "no image of a kind that Pillow reads"}
    json.dumps(dict(data.made_by))
    assert refusal("image_folder", tmp_path, max_broken=0).startswith(
        "1 broken or missing images, source.max_broken is 0: 'cat/2.png': "
    )


def test_a_changed_file_is_decoded_anew(tmp_path):
    folder, kept = tmp_path / "images", str(tmp_path / "kept")
    write(folder, ["1.png", "2.png"])
    assert seeds(load("image_folder", folder, cache_dir=kept)) == [0, 1]
    (folder / "2.png").write_bytes(png(17))
    assert seeds(load("image_folder", folder, cache_dir=kept)) == [0, 17]


def pack(path, seed_list, **arrays):
    files = [png(seed) for seed in seed_list]
    offsets = np.cumsum([0, *map(len, files)])
    np.savez(path, jpeg=np.frombuffer(b"".join(files), dtype=np.uint8), offsets=offsets, **arrays)


def test_packed_files_are_read_by_their_offsets(tmp_path):
    names = np.array(["cat", "dog"])
    pack(tmp_path / "train.npz", [4, 2, 3], labels=np.array([1, 0, 1], dtype=np.uint8), names=names)
    pack(tmp_path / "test.npz", [7], labels=np.array([0], dtype=np.uint8), names=names)
    data = load("image_npz", tmp_path)
    assert {split: seeds(data, rows) for split, rows in data.splits.items()} == {
        "train": [4, 2, 3],
        "test": [7],
    }
    # Files come in the order of their names.
    assert data.ids == ["test/0", "train/0", "train/1", "train/2"]
    assert named(data) == ["cat", "dog", "cat", "dog"]
    alone = load("image_npz", tmp_path / "train.npz")
    assert seeds(alone) == [4, 2, 3] and list(alone.splits) == ["train"]


@pytest.mark.parametrize("grey", [False, True])
def test_an_array_of_pixels_is_read(tmp_path, grey):
    pixels = np.stack([noise(seed)[:, :, 0] if grey else noise(seed) for seed in range(3)])
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.array(["b", "a", "b"]))
    data = load("image_npz", tmp_path / "set.npz")
    found = data.images.take(np.arange(3)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found, np.broadcast_to(pixels[..., None], (3, 4, 6, 3)) if grey else pixels)
    assert data.classes == ("a", "b") and data.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"x": np.zeros(2)}, "arrays found are x; needed are 'images' (uint8"),
        ({"images": np.zeros((2, 4, 4))}, "'images' is float64 2 x 4 x 4; valid is 'images' (uint8"),
        ({"images": np.zeros((2, 3, 4, 4), dtype=np.uint8)}, "'images' is uint8 2 x 3 x 4 x 4; valid"),
        (
            {"jpeg": np.zeros(9, dtype=np.uint8), "offsets": np.array([0, 5, 10])},
            "'offsets' must ascend from 0 to at most 9, the bytes of 'jpeg'",
        ),
        (
            {"images": np.zeros((2, 4, 4), dtype=np.uint8), "labels": np.zeros(3, dtype=np.int64)},
            "'labels' is int64 3; valid are 2 numbers or strings",
        ),
        (
            {
                "images": np.zeros((2, 4, 4), dtype=np.uint8),
                "labels": np.array([0, 2]),
                "names": np.array(["a", "b"]),
            },
            "labels, row 2: label 2; valid are names or numbers from 0 of the 2 classes",
        ),
    ],
)
def test_wrong_arrays_are_named_with_what_is_valid(tmp_path, arrays, line):
    np.savez(tmp_path / "set.npz", **arrays)
    assert line in refusal("image_npz", tmp_path / "set.npz")


def test_a_file_that_is_no_npz_is_one_line(tmp_path):
    (tmp_path / "set.npz").write_bytes(b"PK\x03\x04 cut off")
    assert "no readable .npz file" in refusal("image_npz", tmp_path / "set.npz")
    np.savez(tmp_path / "set.npz", images=np.array([None]))
    assert "no readable .npz file" in refusal("image_npz", tmp_path / "set.npz")
    assert "no such file" in refusal("image_npz", tmp_path / "gone.npz")
    np.savez(tmp_path / "other.npz", images=np.zeros((1, 2, 2), dtype=np.uint8))
    assert "starts with its split: train, dev, test" in refusal("image_npz", tmp_path)


def test_parquet_of_bytes_is_read_over_row_groups(tmp_path):
    table = pa.table({"img": [png(seed) for seed in range(7)], "label": [0, 1, 2, 0, 1, 2, 0]})
    pq.write_table(table, tmp_path / "set.parquet", row_group_size=3)
    data = load("image_parquet", tmp_path / "set.parquet", image_column="img")
    assert seeds(data) == list(range(7)) and data.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert data.classes == ("0", "1", "2")


def test_parquet_of_structs_with_a_split_column_and_missing_images(tmp_path):
    write(tmp_path, ["beside.png"])
    images = [
        {"bytes": png(3), "path": None},
        {"bytes": None, "path": str(tmp_path / "beside.png")},
        {"bytes": None, "path": None},
        {"bytes": png(5), "path": "x.png"},
    ]
    table = pa.table(
        {"image": images, "label": ["b", "a", "a", None], "split": ["train", "test", "test", "val"]}
    )
    pq.write_table(table, tmp_path / "set.parquet")
    data = load("image_parquet", tmp_path / "set.parquet")
    assert {split: seeds(data, rows) for split, rows in data.splits.items()} == {
        "train": [3],
        "dev": [5],
        "test": [0],
    }
    assert named(data) == ["b", "a", None]
    assert data.made_by["broken"] == {"set/2": "no image in this row"}


def test_parquet_files_of_datasets_keep_their_class_names(tmp_path):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    for split, seed in (("train", 1), ("test", 2)):
        rows = {"image": [Image.fromarray(noise(seed))], "label": [seed - 1]}
        made = datasets.Dataset.from_dict(rows, features=features)
        made.to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    data = load("image_parquet", tmp_path)
    assert data.classes == ("no", "yes") and named(data) == ["yes", "no"] and seeds(data) == [2, 1]
    assert {split: rows.tolist() for split, rows in data.splits.items()} == {"train": [1], "test": [0]}


@pytest.mark.parametrize(
    ("columns", "options", "line"),
    [
        (
            {"x": [1]},
            {},
            "no column 'image' or 'img' or 'jpeg' or 'bytes'; columns are x. Set source.image_column",
        ),
        ({"image": ["a.png"]}, {}, "column 'image' holds string; valid are encoded images"),
        ({"image": [b"x"]}, {"label_column": "y"}, "no column 'y'; columns are image"),
        ({"image": [b"x"], "split": ["tset"]}, {}, "row 1: unknown split 'tset'; valid are train, dev, test"),
        ({"image": [b"x"], "label": [1.5]}, {}, "row 1: label 1.5; valid are names or numbers from 0"),
    ],
)
def test_wrong_columns_are_named(tmp_path, columns, options, line):
    pq.write_table(pa.table(columns), tmp_path / "set.parquet")
    assert line in refusal("image_parquet", tmp_path / "set.parquet", **options)


def test_a_saved_data_set_is_read_without_decoding_it_twice(tmp_path):
    features = datasets.Features(
        {"picture": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = {"picture": [Image.fromarray(noise(seed)) for seed in (8, 9)], "label": [1, 0]}
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": made, "validation": made.select([1])}).save_to_disk(tmp_path / "set")
    data = load("image_dataset", tmp_path / "set", image_column="picture")
    # The train image that dev has as well is in no split.
    assert {split: seeds(data, rows) for split, rows in data.splits.items()} == {"train": [8], "dev": [9]}
    assert data.made_by["leaked_train_images"] == 1
    assert data.ids == ["train/0", "train/1", "validation/0"] and named(data) == ["yes", "no", "no"]


def test_a_data_set_without_images_or_of_an_unknown_split_is_refused(tmp_path):
    datasets.Dataset.from_dict({"image": ["a"]}).save_to_disk(tmp_path / "texts")
    assert "valid are an Image feature or binary" in refusal("image_dataset", tmp_path / "texts")
    other = datasets.Dataset.from_dict({"image": [png(0)]})
    datasets.DatasetDict({"unsupervised": other}).save_to_disk(tmp_path / "other")
    assert "split unsupervised: unknown split; valid are" in refusal("image_dataset", tmp_path / "other")


def test_labels_of_files_that_know_other_classes_meet_by_name(tmp_path):
    for split, labels in (("train", ["dog", "ant"]), ("test", ["cat", "dog"])):
        pixels = np.stack([noise(len(split)), noise(len(split) + 10)])
        np.savez(tmp_path / f"{split}.npz", images=pixels, labels=np.array(labels))
    data = load("image_npz", tmp_path)
    assert data.classes == ("ant", "cat", "dog") and named(data) == ["cat", "dog", "dog", "ant"]
