import datasets
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.config import ColumnNames
from retrieval_cl.sources.hf import read_huggingface

TRAIN = {"anchor": ["a", "b"], "positive": ["p", "r"], "negative": ["n", None]}
TEST = {"anchor": ["t"], "positive": ["p"], "negative": [None]}


@pytest.fixture(autouse=True)
def quiet_and_offline(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def refusal(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_huggingface(str(path), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def texts_of(data, split):
    qrels = data.splits[split]
    return [
        (data.queries.texts[query], data.passages.texts[passage])
        for query, passage in zip(qrels.queries, qrels.passages, strict=True)
    ]


def test_saved_splits_are_read(tmp_path):
    saved = datasets.DatasetDict(
        {"train": datasets.Dataset.from_dict(TRAIN), "validation": datasets.Dataset.from_dict(TEST)}
    )
    saved.save_to_disk(tmp_path / "set")
    data = read_huggingface(str(tmp_path / "set"))
    assert data.name == "set" and list(data.splits) == ["train", "dev"]
    assert texts_of(data, "train") == [("a", "p"), ("b", "r")] and texts_of(data, "dev") == [("t", "p")]
    assert data.passages.texts[data.given_negatives[0][0]] == "n" and data.given_negatives.counts.sum() == 1


def test_single_saved_table_is_train(tmp_path):
    datasets.Dataset.from_dict({"q": ["a"], "d": ["p"]}).save_to_disk(tmp_path / "set")
    data = read_huggingface(str(tmp_path / "set"), columns=ColumnNames(anchor="q", positive="d"))
    assert texts_of(data, "train") == [("a", "p")]


def test_folder_of_files_is_read(tmp_path):
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(TRAIN).to_parquet(tmp_path / "set" / "train.parquet")
    data = read_huggingface(str(tmp_path / "set"))
    assert texts_of(data, "train") == [("a", "p"), ("b", "r")]


def test_bad_row_is_named_by_split_and_row(tmp_path):
    datasets.Dataset.from_dict({"anchor": ["a", ""], "positive": ["p", "p"]}).save_to_disk(tmp_path / "set")
    assert (
        refusal(tmp_path / "set") == f"{tmp_path / 'set'}, split train, row 2: empty text in column 'anchor'"
    )


def test_missing_column_lists_the_columns_there_are(tmp_path):
    datasets.Dataset.from_dict({"anchor": ["a"], "text": ["p"]}).save_to_disk(tmp_path / "set")
    assert "no column 'positive' or 'passage'; columns are anchor, text" in refusal(tmp_path / "set")


def test_unreachable_hub_is_one_line_with_a_way_out():
    message = refusal("nobody/nothing-here")
    assert message.startswith("data set 'nobody/nothing-here': the Hugging Face Hub cannot be reached")
    assert "save_to_disk" in message


def test_folder_without_data_is_one_line(tmp_path):
    (tmp_path / "set").mkdir()
    assert refusal(tmp_path / "set").startswith(f"data set '{tmp_path / 'set'}' cannot be loaded: ")
