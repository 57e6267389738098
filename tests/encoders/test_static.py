import math

import numpy as np
import pytest
import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.static import (
    UNKNOWN,
    build_static,
    build_static_lsa,
    token_idf,
    train_tokenizer,
    wrap_static,
)
from retrieval_cl.encoders.words import split_words


def tokens_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).tokens


def weights_of(encoder):
    return encoder.model[0].embedding.weight.detach().numpy()


def test_frequent_words_are_whole_and_split_as_for_bm25(corpus):
    tokenizer = train_tokenizer(corpus, vocab_size=2000, min_count=1, whole_words=1.0)
    assert [tokens_of(tokenizer, text) for text in corpus] == split_words(corpus)


def test_a_rare_compound_falls_into_the_tokens_of_its_parts():
    texts = ["file path file path"] * 5 + ["filepath filepath"]
    tokenizer = train_tokenizer(texts, vocab_size=13, min_count=3)
    assert tokens_of(tokenizer, "filepath") == tokens_of(tokenizer, "file path") == ["file", "path"]


def test_a_word_of_unseen_characters_is_unknown(tokenizer):
    assert tokens_of(tokenizer, "file λ") == ["file", UNKNOWN]
    assert tokens_of(tokenizer, "a" * 200) == [UNKNOWN]


def test_the_same_texts_give_the_same_tokenizer(corpus):
    first, *others = [train_tokenizer(corpus, vocab_size=150).to_str() for _ in range(4)]
    assert all(other == first for other in others)


@pytest.mark.parametrize("vocab_size", [2, 30, 60, 120])
def test_vocabulary_is_no_larger_than_asked(corpus, vocab_size):
    tokenizer = train_tokenizer(corpus, vocab_size=vocab_size, min_count=1)
    assert tokenizer.get_vocab_size() == vocab_size
    assert sorted(tokenizer.get_vocab().values()) == list(range(vocab_size))


def test_punctuation_is_kept_only_when_asked():
    texts = ["a(b) == c", "a.b"]
    assert tokens_of(train_tokenizer(texts, min_count=1), "a(b)!") == ["a", "b"]
    kept = train_tokenizer(texts, min_count=1, keep_punctuation=True)
    assert tokens_of(kept, "a(b)==c") == ["a", "(", "b", ")", "=", "=", "c"]


@pytest.mark.parametrize("texts", [[], ["", "  "], ["()!"]])
def test_a_corpus_without_words_is_refused(texts):
    with pytest.raises(InputError, match=f"corpus of {len(texts)} texts holds no word"):
        train_tokenizer(texts)


def test_idf_equals_a_slow_loop(static_encoder, tokenizer, corpus):
    tokens = static_encoder.tokenize(corpus, kind="passage")
    idf = token_idf(tokens, vocab_size=tokenizer.get_vocab_size())
    for token in range(tokenizer.get_vocab_size()):
        held = sum(token in tokens[row] for row in range(len(corpus)))
        assert idf[token] == pytest.approx(math.log(1 + (len(corpus) - held + 0.5) / (held + 0.5)))
    assert idf.min() > 0


@pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
def test_first_lengths_are_idf_to_the_power(tokenizer, corpus, power):
    encoder = build_static(tokenizer, corpus, dim=16, seed=0, idf_power=power)
    tokens = encoder.tokenize(corpus, kind="passage")
    idf = token_idf(tokens, vocab_size=tokenizer.get_vocab_size())
    lengths = np.linalg.norm(weights_of(encoder), axis=1)
    known = np.arange(len(idf)) != tokenizer.token_to_id(UNKNOWN)
    np.testing.assert_allclose(lengths[known], idf[known] ** power / (idf**power).mean(), rtol=1e-5)
    assert lengths[~known] == 0


def test_random_start_is_tf_idf_search(tokenizer, corpus):
    encoder = build_static(tokenizer, corpus, dim=8192, seed=0)
    tokens = encoder.tokenize(corpus, kind="passage")
    idf = token_idf(tokens, vocab_size=tokenizer.get_vocab_size())
    bags = np.stack([np.bincount(tokens[row], minlength=len(idf)) * idf for row in range(len(corpus))])
    bags /= np.linalg.norm(bags, axis=1, keepdims=True)
    vectors = encoder.encode(corpus, kind="passage")
    np.testing.assert_allclose(vectors @ vectors.T, bags @ bags.T, atol=0.05)


def test_the_seed_decides_the_random_directions(tokenizer, corpus):
    one, same, other = (build_static(tokenizer, corpus, dim=8, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(weights_of(one), weights_of(same))
    assert not np.allclose(weights_of(one), weights_of(other))


def test_lsa_puts_words_of_queries_beside_words_of_their_passages(tokenizer, corpus):
    queries, passages = ["crème crème", "argv argv"], np.array([4, 2], dtype=np.int64)
    encoder = build_static_lsa(tokenizer, corpus, dim=2, seed=0, queries=queries, passages=passages)
    crème, median, argv, port = encoder.encode(["crème", "median", "argv", "port"], kind="query")
    assert crème @ median > 0.9
    assert argv @ port > 0.9
    assert abs(crème @ argv) < 0.3


def test_lsa_gives_tokens_of_no_context_a_random_direction(tokenizer, corpus):
    passages = np.array([0, 4], dtype=np.int64)
    encoder = build_static_lsa(tokenizer, corpus, dim=8, seed=0, queries=["sort", "read"], passages=passages)
    random = build_static(tokenizer, corpus, dim=8, seed=0)
    unseen = tokenizer.token_to_id("json")
    np.testing.assert_allclose(weights_of(encoder)[unseen], weights_of(random)[unseen], rtol=1e-5)
    lengths = [np.linalg.norm(weights_of(each), axis=1) for each in (encoder, random)]
    np.testing.assert_allclose(*lengths, rtol=1e-4)


def test_lsa_without_pairs_is_lsa_of_the_corpus(tokenizer, corpus):
    every = np.arange(len(corpus))
    alone = build_static_lsa(tokenizer, corpus, dim=8, seed=0)
    empty = build_static_lsa(tokenizer, corpus, dim=8, seed=0, queries=[""] * len(corpus), passages=every)
    doubled = build_static_lsa(tokenizer, corpus, dim=8, seed=0, queries=corpus, passages=every[::-1].copy())
    assert np.array_equal(weights_of(alone), weights_of(empty))
    assert not np.allclose(weights_of(alone), weights_of(doubled))


def test_wrapped_weights_are_the_rows_of_the_bag(tokenizer):
    weights = np.eye(tokenizer.get_vocab_size(), dtype=np.float32)
    encoder = wrap_static(tokenizer, weights)
    vector = encoder.encode(["read read file"], kind="passage")[0]
    read, file = (tokenizer.token_to_id(word) for word in ("read", "file"))
    expected = torch.zeros(len(weights))
    expected[read], expected[file] = 2 / math.sqrt(5), 1 / math.sqrt(5)
    np.testing.assert_allclose(vector, expected, atol=1e-6)
