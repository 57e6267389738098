import datasets
import pytest
from image_text_files import load, named, noise, pictures, refusal, split_seeds
from PIL import Image


@pytest.fixture(autouse=True)
def quiet_and_offline(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def made(seeds, **columns):
    features = {"image": datasets.Image()}
    rows = {"image": [None if seed is None else Image.fromarray(noise(seed)) for seed in seeds]}
    for name, values in columns.items():
        is_list = isinstance(values[0], list)
        features[name] = [datasets.Value("string")] if is_list else datasets.Value("string")
        rows[name] = values
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def test_a_saved_data_set_with_lists_of_captions_is_read(tmp_path):
    train = made([8, 9, None], caption=[["a", "b"], ["c"], ["d"]])
    test = made([7], caption=[["e"]])
    datasets.DatasetDict({"train": train, "validation": test}).save_to_disk(tmp_path / "set")
    data = load("image_text_dataset", tmp_path / "set")
    assert pictures(data) == {8: ["a", "b"], 9: ["c"], 7: ["e"]}
    assert split_seeds(data) == {"train": [8, 9], "dev": [7]} and data.name == "set"
    assert data.ids == ["train/0", "train/1", "validation/0"]
    assert data.made_by["broken"] == {"train/2": "no image in this row"}


def test_columns_of_captions_classes_and_splits_may_be_named(tmp_path):
    rows = made([1, 2, 3], short=["a", "b", "c"], long=["aa", "b", ""], part=["train", "test", "none"])
    rows = rows.add_column("kind", [1, 0, 1]).cast_column("kind", datasets.ClassLabel(names=["no", "yes"]))
    rows.rename_column("image", "picture").save_to_disk(tmp_path / "set")
    data = load(
        "image_text_dataset",
        tmp_path / "set",
        image_column="picture",
        caption_columns=["short", "long"],
        label_column="kind",
        split_column="part",
    )
    assert pictures(data) == {1: ["a", "aa"], 2: ["b"]} and split_seeds(data) == {"train": [1], "test": [2]}
    assert data.classes == ("no", "yes") and named(data) == ["yes", "no"]


def test_a_folder_that_load_dataset_reads_is_read(tmp_path):
    (tmp_path / "set").mkdir()
    made([1, 2], text=["a", "b"]).to_parquet(tmp_path / "set" / "train-00000-of-00001.parquet")
    assert pictures(load("image_text_dataset", tmp_path / "set")) == {1: ["a"], 2: ["b"]}


def test_a_data_set_without_captions_or_that_cannot_be_had_is_one_line(tmp_path):
    made([1]).save_to_disk(tmp_path / "bare")
    assert "split train: no column 'caption'" in refusal("image_text_dataset", tmp_path / "bare")
    line = refusal("image_text_dataset", "nobody/nothing-here")
    assert "the Hugging Face Hub cannot be reached" in line and "kind 'image_text_table'" in line
    datasets.DatasetDict({"restval": made([1], text=["a"])}).save_to_disk(tmp_path / "other")
    assert "split restval: unknown split; valid are" in refusal("image_text_dataset", tmp_path / "other")
