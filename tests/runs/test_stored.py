import numpy as np
import pytest
import torch

from retrieval_cl.encoders.static import build_static, train_tokenizer
from retrieval_cl.runs.stored import store_texts

TEXTS = [f"read file {number} and write line {number % 7}" for number in range(23)]


@pytest.fixture
def encoder():
    return build_static(train_tokenizer(TEXTS, vocab_size=200, min_count=1), TEXTS, dim=8, seed=0)


def encoded_rows(folder, encoder, **options):
    options = {"kind": "passage", "shard_rows": 6} | options
    return store_texts(folder, TEXTS, encoder=encoder, **options)[1].encoded


def test_store_holds_what_encode_gives(tmp_path, encoder):
    store, done = store_texts(tmp_path / "s", TEXTS, encoder=encoder, kind="passage", dtype="float32")
    assert done.encoded == len(TEXTS)
    np.testing.assert_allclose(torch.cat(store.shards), encoder.encode(TEXTS, kind="passage"), atol=1e-6)


def test_one_changed_weight_misses_and_the_same_weights_hit(tmp_path, encoder):
    assert encoded_rows(tmp_path / "s", encoder) == len(TEXTS)
    assert encoded_rows(tmp_path / "s", encoder) == 0
    with torch.no_grad():
        encoder.model[0].embedding.weight[-1, -1] += 1e-3
    assert encoded_rows(tmp_path / "s", encoder) == len(TEXTS)


@pytest.mark.parametrize(
    "change", [{"kind": "query"}, {"dtype": "float32"}, {"compute_dtype": torch.bfloat16}], ids=str
)
def test_other_kind_or_type_misses(tmp_path, encoder, change):
    encoded_rows(tmp_path / "s", encoder)
    assert encoded_rows(tmp_path / "s", encoder, **change) == len(TEXTS)
