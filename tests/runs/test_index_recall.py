from dataclasses import replace

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing.approximate import FaissSettings
from retrieval_cl.runs.config import IndexConfig
from retrieval_cl.runs.index import _some_queries, faiss_settings
from retrieval_cl.sources.records import Texts


def test_settings_of_faiss_reach_it():
    config = IndexConfig(factory="auto", target_recall=0.9, recall_k=20, memory="2GiB", gpus=0)
    assert faiss_settings(config) == FaissSettings("auto", 0.9, k=20, memory_bytes=2**31, num_gpus=0)
    assert faiss_settings(IndexConfig()) is None


@pytest.mark.parametrize(
    "given", [{"target_recall": 0.9}, {"recall_k": 5}, {"memory": "1GiB"}, {"gpus": 1}, {"gpu_fp16": True}]
)
def test_setting_of_faiss_without_a_factory_is_an_error(given):
    with pytest.raises(InputError, match=f"index.{next(iter(given))} has no effect on exact search"):
        faiss_settings(IndexConfig(**given))


def test_precision_on_gpus_without_gpus_is_an_error():
    with pytest.raises(InputError, match=r"index\.gpu_fp16 has no effect without GPUs"):
        faiss_settings(IndexConfig(factory="auto", gpus=0, gpu_fp16=False))
    assert faiss_settings(IndexConfig(factory="auto", gpu_fp16=False)).fp16 is False


def test_recall_is_measured_with_queries_outside_test_where_they_are_enough(tiny_data, monkeypatch):
    test = set(tiny_data.splits["test"].judged_queries.tolist())
    everything = set(tiny_data.queries.texts)
    assert test and set(_some_queries(tiny_data, seed=0)) == everything
    monkeypatch.setattr("retrieval_cl.runs.index._ENOUGH_QUERIES", 1)
    others = {text for row, text in enumerate(tiny_data.queries.texts) if row not in test}
    assert set(_some_queries(tiny_data, seed=0)) == others
    assert np.array_equal(_some_queries(tiny_data, seed=1), _some_queries(tiny_data, seed=1))


def test_queries_are_asked_with_their_titles_as_a_search_does(tiny_data):
    titled = Texts(tiny_data.queries.ids, tiny_data.queries.texts, ["A title"] * len(tiny_data.queries))
    asked = _some_queries(replace(tiny_data, queries=titled), seed=0)
    assert sorted(asked) == sorted(f"A title\n{text}" for text in tiny_data.queries.texts)
