import threading

import numpy as np
import pytest
import torch

from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders import ahead


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(ahead, "WINDOW_ROWS", 3)


def lengths(texts):
    return Ragged.from_lists([list(range(len(text))) for text in texts])


@pytest.mark.parametrize("count", [0, 1, 3, 7, 9])
def test_windows_of_texts_and_of_tokens_are_the_same(small_windows, count):
    texts = ["x" * length for length in range(count)]
    from_texts = list(ahead.token_windows(texts, tokenize=lengths))
    from_tokens = list(ahead.token_windows(lengths(texts), tokenize=lengths))
    assert (
        [start for start, _ in from_texts] == [start for start, _ in from_tokens] == list(range(0, count, 3))
    )
    for (_, left), (_, right) in zip(from_texts, from_tokens, strict=True):
        np.testing.assert_array_equal(left.counts, right.counts)
        np.testing.assert_array_equal(left.values, right.values)


def test_next_window_is_tokenised_while_one_is_worked_on(small_windows):
    second = threading.Event()

    def tokenize(texts):
        if texts[0] == "d":
            second.set()
        return lengths(texts)

    windows = ahead.token_windows(list("abcdef"), tokenize=tokenize)
    next(windows)
    assert second.wait(10)
    assert len(list(windows)) == 1


def test_error_of_the_tokenizer_is_raised(small_windows):
    def tokenize(texts):
        raise RuntimeError("broken tokenizer")

    with pytest.raises(RuntimeError, match="broken tokenizer"):
        list(ahead.token_windows(["a"], tokenize=tokenize))


@pytest.mark.parametrize("kind", ["static", "bert"])
def test_windows_do_not_change_the_vectors(build, corpus, kind, small_windows):
    encoder = build(kind)
    cut = encoder.encode(corpus, kind="passage")
    assert np.array_equal(cut, encoder.encode(encoder.tokenize(corpus, kind="passage"), kind="passage"))
    with torch.no_grad():
        tokens = encoder.eval().tokenize(corpus, kind="passage")
        np.testing.assert_allclose(cut, encoder.embed(tokens, kind="passage"), atol=1e-6)
