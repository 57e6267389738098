"""Token dropout: only in training, by torch's generator, never a whole text."""

import numpy as np
import torch

from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.config import EncoderConfig
from retrieval_cl.encoders.load import build_encoder
from retrieval_cl.encoders.text import drop_tokens

TEXTS = ["read a file line by line", "write rows into a table", "open one socket"]


def build(**settings):
    return build_encoder(
        EncoderConfig(kind="static", dim=8, vocab_size=200, min_count=1, init="random", **settings),
        corpus_texts=TEXTS,
    )


def test_about_the_share_of_tokens_is_left_out_and_order_is_kept():
    tokens = Ragged.from_lists([list(range(1000))] * 4, dtype=np.int32)
    torch.manual_seed(0)
    left = drop_tokens(tokens, 0.3)
    assert 0.65 < len(left.values) / len(tokens.values) < 0.75
    assert all((np.diff(left[row]) > 0).all() for row in range(4))
    assert not np.array_equal(left[0], left[1])


def test_a_row_that_would_lose_all_keeps_all_and_empty_rows_stay():
    tokens = Ragged.from_lists([[7], [], [8, 9]], dtype=np.int32)
    torch.manual_seed(0)
    for _ in range(50):
        left = drop_tokens(tokens, 0.95)
        assert list(left[0]) == [7] and len(left[1]) == 0 and 1 <= len(left[2]) <= 2


def test_dropout_acts_in_training_only_and_repeats_with_the_seed():
    encoder = build(token_dropout=0.5)
    tokens = encoder.tokenize(TEXTS, kind="query")
    still = encoder.eval().embed(tokens, kind="query")
    assert torch.equal(still, encoder.embed(tokens, kind="query"))
    assert np.allclose(encoder.encode(TEXTS, kind="query"), still.detach().numpy(), atol=1e-6)
    encoder.train()
    torch.manual_seed(1)
    first = encoder.embed(tokens, kind="query")
    torch.manual_seed(1)
    assert torch.equal(first, encoder.embed(tokens, kind="query"))
    assert not torch.equal(first, still)


def test_limit_of_tokens_holds_before_the_first_vectors_are_made():
    encoder = build(max_tokens=2)
    assert encoder.tokenize(TEXTS, kind="passage").counts.max() == 2
