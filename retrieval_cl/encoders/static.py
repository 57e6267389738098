"""The static encoder: one vector a token, their mean, unit length. Its tokenizer is trained on the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from jaxtyping import Float32, Float64, Int64
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, trainers

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.inputs import StaticInput
from retrieval_cl.encoders.lsa import count_matrix, right_singular_vectors, weigh_counts
from retrieval_cl.encoders.splitting import make_normalizer, make_pre_tokenizer
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.encoders.words import count_words

UNKNOWN = "[UNK]"
_MAX_ALPHABET = 1000
# A longer run of letters is no word (base64, a hash): it becomes one unknown token.
_MAX_WORD_CHARS = 100


def train_tokenizer(
    texts: Sequence[str],
    *,
    vocab_size: int = 30_000,
    whole_words: float = 0.8,
    min_count: int = 2,
    keep_punctuation: bool = False,
) -> Tokenizer:
    """A code-aware tokenizer whose frequent words are whole and whose rare words are cut into pieces.

    The vocabulary is the alphabet, then the most frequent words, then pieces learnt by byte-pair merges
    (Sennrich et al. 2016) over the distinct words, each counted once. A word is cut greedily, the longest
    entry first (WordPiece). A piece is spelt the same at the start and inside a word, so that a rare
    `filepath` falls into the very tokens of `file path`. The same texts give the same tokenizer.

    Args:
        texts: the corpus.
        vocab_size: number of tokens, at most.
        whole_words: the share of the vocabulary that goes to whole words.
        min_count: a word seen less often never is a token of its own.
        keep_punctuation: whether each punctuation mark is a token; if not, it only parts words.

    Raises:
        InputError: the texts hold no word.
    """
    counts = count_words(texts)
    if keep_punctuation:
        counts.update(character for text in texts for character in text if _is_mark(character))
    if not counts:
        raise InputError(f"the corpus of {len(texts)} texts holds no word: nothing to train a tokenizer on")
    frequent = [word for word, count in counts.items() if count >= min_count]
    words = sorted(frequent, key=lambda word: (-counts[word], word))
    whole = words[: int(whole_words * vocab_size)]
    pieces = _learn_pieces(sorted(counts), size=vocab_size)
    vocabulary = dict.fromkeys([UNKNOWN, *_alphabet(counts), *whole, *pieces])
    tokenizer = Tokenizer(
        models.WordPiece(
            {token: index for index, token in enumerate(islice(vocabulary, vocab_size))},
            unk_token=UNKNOWN,
            continuing_subword_prefix="",
            max_input_chars_per_word=_MAX_WORD_CHARS,
        )
    )
    tokenizer.normalizer = make_normalizer()
    tokenizer.pre_tokenizer = make_pre_tokenizer(keep_punctuation=keep_punctuation)
    return tokenizer


def build_static(
    tokenizer: Tokenizer, texts: Sequence[str], *, dim: int, seed: int, idf_power: float = 1.0
) -> TextEncoder:
    """A static encoder whose first vectors are random directions, as long as their token is telling.

    The row of token t is `(idf(t) ** idf_power / mean) * u`, u uniform on the unit sphere. As the mean of
    rows is scaled to unit length, a text starts out as a random projection of its idf-weighted bag of tokens:
    training starts from lexical search. `idf_power` 0 gives all tokens the same length.

    Args:
        tokenizer: as `train_tokenizer` gives it.
        texts: the corpus, for the number of texts each token occurs in.
        dim: length of a vector.
        seed: of the random directions.
        idf_power: 0 or more.
    """
    idf = token_idf(_tokenize(tokenizer, texts), vocab_size=tokenizer.get_vocab_size())
    directions = _random_directions(len(idf), dim=dim, seed=seed)
    return wrap_static(tokenizer, directions * _first_lengths(idf, tokenizer=tokenizer, power=idf_power))


def build_static_lsa(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    dim: int,
    seed: int,
    idf_power: float = 1.0,
    queries: Sequence[str] = (),
    passages: Int64[np.ndarray, " P"] | None = None,
) -> TextEncoder:
    """As `build_static`, but tokens that occur in the same contexts point the same way.

    A context is a query together with its passage, so that the words of queries meet those of passages;
    without queries it is a passage. The direction of token t is its row of the leading right singular vectors
    of the tf-idf matrix of the contexts (latent semantic analysis, Deerwester et al. 1990), scaled to unit
    length. A token that no context holds gets a random one.

    Args:
        tokenizer: as `train_tokenizer` gives it.
        texts: the corpus, for the number of texts each token occurs in.
        dim: length of a vector.
        seed: of the randomised SVD and the random directions.
        idf_power: 0 or more.
        queries: the query of each training pair; never of other splits.
        passages: the row in `texts` of each pair's passage.
    """
    vocab_size = tokenizer.get_vocab_size()
    tokens = _tokenize(tokenizer, texts)
    idf = token_idf(tokens, vocab_size=vocab_size)
    contexts = count_matrix(tokens, vocab_size=vocab_size)
    assert len(queries) == (0 if passages is None else len(passages))
    if passages is not None:
        contexts = contexts[passages] + count_matrix(_tokenize(tokenizer, queries), vocab_size=vocab_size)
    found = right_singular_vectors(weigh_counts(contexts, idf.astype(np.float32)), rank=dim, seed=seed)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    # Below that, a row is rounding error.
    directions = np.where(
        lengths > 1e-6, found / np.maximum(lengths, 1e-6), _random_directions(vocab_size, dim=dim, seed=seed)
    )
    return wrap_static(tokenizer, directions * _first_lengths(idf, tokenizer=tokenizer, power=idf_power))


def wrap_static(tokenizer: Tokenizer, weights: Float32[np.ndarray, "V D"]) -> TextEncoder:
    """The static encoder of these vectors, one for each id of the tokenizer."""
    embedding = StaticEmbedding(tokenizer, embedding_weights=weights)
    return TextEncoder(SentenceTransformer(modules=[embedding, Normalize()], device="cpu"))


def token_idf(tokens: Ragged, *, vocab_size: int) -> Float64[np.ndarray, " V"]:
    """Inverse document frequency as in BM25, above 0: log(1 + (N - n + 0.5) / (n + 0.5)) for n of N texts."""
    frequency = count_matrix(tokens, vocab_size=vocab_size).getnnz(axis=0)
    idf: Float64[np.ndarray, " V"] = np.log1p((len(tokens) - frequency + 0.5) / (frequency + 0.5))
    return idf


def _tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> Ragged:
    return StaticInput(tokenizer, prompt="").tokenize(texts)


def _random_directions(num_rows: int, *, dim: int, seed: int) -> Float32[np.ndarray, "V D"]:
    directions = np.random.default_rng(seed).standard_normal((num_rows, dim), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions


def _first_lengths(
    idf: Float64[np.ndarray, " V"], *, tokenizer: Tokenizer, power: float
) -> Float32[np.ndarray, "V 1"]:
    lengths = idf**power
    lengths /= lengths.mean()
    unknown = tokenizer.token_to_id(UNKNOWN)
    if unknown is not None:
        # It stands for many things that have nothing in common.
        lengths[unknown] = 0.0
    return lengths[:, None].astype(np.float32)


def _alphabet(counts: dict[str, int]) -> list[str]:
    characters: dict[str, int] = {}
    for word, count in counts.items():
        for character in word:
            characters[character] = characters.get(character, 0) + count
    return sorted(characters, key=lambda character: (-characters[character], character))[:_MAX_ALPHABET]


def _learn_pieces(words: Sequence[str], *, size: int) -> list[str]:
    """Pieces in the order in which byte-pair merges over distinct words find them: the most useful first."""
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, limit_alphabet=_MAX_ALPHABET)
    tokenizer.train_from_iterator(words, trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=lambda piece: ids[piece])


def _is_mark(character: str) -> bool:
    return not character.isalnum() and not character.isspace()
