import json

import pytest
from pydantic import ValidationError

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.config import ColumnNames, SourceConfig
from retrieval_cl.sources.load import READERS, load


def write_pairs(path, texts):
    path.write_text(
        "".join(json.dumps({"anchor": text, "positive": f"about {text}"}) + "\n" for text in texts)
    )
    return str(path)


def train_texts(data):
    return {data.queries.texts[query] for query in data.splits["train"].judged_queries}


def test_every_kind_has_a_reader():
    kinds = SourceConfig.model_fields["kind"].annotation.__args__
    assert set(READERS) == set(kinds)


def test_dev_is_taken_from_train_where_there_is_none(tmp_path):
    path = write_pairs(tmp_path / "pairs.jsonl", [f"text {i}" for i in range(20)])
    data = load(SourceConfig(kind="pairs", path=path))
    assert {split: len(qrels.judged_queries) for split, qrels in data.splits.items()} == {
        "train": 18,
        "dev": 2,
    }
    data = load(SourceConfig(kind="pairs", path=path, test_share=0.25, dev_share=0.2))
    assert {split: len(qrels.judged_queries) for split, qrels in data.splits.items()} == {
        "train": 12,
        "test": 5,
        "dev": 3,
    }
    assert list(load(SourceConfig(kind="pairs", path=path, dev_share=0.0)).splits) == ["train"]


def test_leaks_leave_training_and_are_counted(tmp_path):
    write_pairs(tmp_path / "train.jsonl", ["one", "two", "Three", "four"])
    write_pairs(tmp_path / "test.jsonl", ["three", "two"])
    data = load(SourceConfig(kind="pairs", path=str(tmp_path), dev_share=0.0))
    assert train_texts(data) == {"one", "four"} and data.made_by["leaked_train_queries"] == 2
    data = load(SourceConfig(kind="pairs", path=str(tmp_path), dev_share=0.5))
    held_out = {data.queries.texts[query] for query in data.splits["dev"].judged_queries}
    assert len(train_texts(data)) == len(held_out) == 1 and train_texts(data) | held_out == {"one", "four"}


def test_share_for_a_split_that_is_there_is_refused(tmp_path):
    write_pairs(tmp_path / "test.jsonl", ["three", "two"])
    with pytest.raises(InputError, match=r"source\.test_share 0\.5 has no effect.*splits test"):
        load(SourceConfig(kind="pairs", path=str(tmp_path), test_share=0.5))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "beir"}, "kind 'beir' needs a path"),
        (
            {"path": "x"},
            "path 'x' has no effect with kind 'pydoc'; set kind to 'beir' or 'pairs' or 'huggingface'",
        ),
        (
            {"kind": "beir", "path": "x", "columns": ColumnNames(anchor="q")},
            "columns has no effect with kind 'beir'",
        ),
        ({"kind": "pairs", "path": "x", "revision": "v1"}, "revision has no effect"),
        ({"kind": "pairs", "path": "x", "packages": ("numpy",)}, "packages has no effect"),
        ({"kind": "csv", "path": "x"}, "'pydoc', 'beir', 'pairs' or 'huggingface'"),
        ({"dev_share": 1.0}, "less than 1"),
        ({"test_share": -0.1}, "greater than or equal to 0"),
        ({"max_pairs": 0}, "greater than or equal to 1"),
        ({"pth": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(settings, said):
    with pytest.raises(ValidationError) as caught:
        SourceConfig(**settings)
    assert said in str(caught.value)


def test_settings_survive_a_round_trip_with_all_defaults_written_out():
    config = SourceConfig(kind="beir", path="x")
    assert SourceConfig(**json.loads(config.model_dump_json())) == config


def test_every_setting_is_described():
    for model in (SourceConfig, ColumnNames):
        assert all(field.description for field in model.model_fields.values())
