"""A folder of stores gives the vectors of its texts in one array, whatever the model and the shards."""

import numpy as np
import pytest
from tiny_bert import save_bert, word_backend

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.config import EncoderConfig
from retrieval_cl.encoders.load import build_encoder
from retrieval_cl.runs import kept_vectors
from retrieval_cl.runs.kept_vectors import KeptVectors
from retrieval_cl.runs.models import Model
from retrieval_cl.runs.stories import index_story


@pytest.fixture
def transformer(tmp_path, tiny_data):
    words = {word for text in tiny_data.passages.full() for word in text.lower().split()}
    folder = save_bert(tmp_path / "bert", word_backend(words))
    return build_encoder(EncoderConfig(kind="transformer", path=str(folder)), corpus_texts=())


@pytest.mark.parametrize("rows", [7, 100])
def test_vectors_of_a_transformer_are_those_of_encode_up_to_their_last_bits(
    tmp_path, tiny_data, transformer, monkeypatch, rows
):
    monkeypatch.setattr(kept_vectors, "SHARD_ROWS", rows)
    texts, lines = tiny_data.passages.full(), []
    found = KeptVectors(tmp_path / "kept", lines.append).vectors(texts, encoder=transformer, kind="passage")
    assert found.dtype == np.float32 and lines == [f"{tmp_path / 'kept' / 'passages'}: 48 embedded, 0 kept"]
    np.testing.assert_allclose(found, transformer.encode(texts, kind="passage"), atol=1e-5)


def test_many_shards_and_one_give_the_same_bits_of_the_same_store(tmp_path, tiny_data, encoder, monkeypatch):
    texts, kept = tiny_data.passages.full(), KeptVectors(tmp_path / "kept")
    one = kept.vectors(texts, encoder=encoder, kind="passage")
    monkeypatch.setattr(kept_vectors, "SHARD_ROWS", 5)
    several = kept.vectors(texts, encoder=encoder, kind="passage")
    np.testing.assert_array_equal(one, several)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["passages"]


@pytest.mark.parametrize("embeds", ["images", "image_text"])
def test_a_store_for_an_index_of_images_is_refused(tmp_path, embeds):
    model = Model("model", "photos", None, embeds)
    with pytest.raises(InputError, match=r"--store .*vectors has no effect: photos embeds images"):
        index_story(model, config=None, overrides=(), data=None, corpus=None, store=tmp_path / "vectors")
