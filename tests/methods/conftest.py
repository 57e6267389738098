"""Tiny text batches and an encoder for them."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.views import Batch, View
from retrieval_cl.encoders.static import wrap_static

WORDS = 12


@pytest.fixture
def make_text_encoder():
    """A static encoder over 12 words, one a token; its vectors are seeded."""

    def make(*, dim=8, seed=0):
        tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)}, unk_token="w0"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        weights = np.random.default_rng(seed).standard_normal((WORDS, dim)).astype(np.float32)
        return wrap_static(tokenizer, weights)

    return make


@pytest.fixture
def make_text_batch():
    """Four anchors, two mined negatives each; anchors 1 and 3 share a positive, one negative is missing."""

    def make(*, negatives=True):
        query = View(Ragged.from_lists([[0], [1], [2], [3]], dtype=np.int32), torch.arange(100, 104))
        positive = View(
            Ragged.from_lists([[4, 0], [5, 1], [6, 2], [5, 3]], dtype=np.int32),
            torch.tensor([10, 11, 12, 11]),
        )
        negative = View(
            Ragged.from_lists([[7], [8], [9], [5], [10], [11], [4, 0], [0]], dtype=np.int32),
            torch.tensor([20, 21, 22, 11, 23, 24, 10, -1]),
        )
        views = {"query": query, "positive": positive} | ({"negative": negative} if negatives else {})
        return Batch(views, torch.tensor([[10, -1], [11, -1], [12, 24], [11, -1]]))

    return make
