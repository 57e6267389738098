"""Tokens, groups of equal texts, and what is known to match a train query."""

import dataclasses

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.runs.prepare import prepare_text, text_pairs
from retrieval_cl.sources.records import Qrels, RetrievalData, Texts


def qrels(*pairs):
    columns = np.array([(query, passage, 1) for query, passage in pairs], dtype=np.int64).T
    return Qrels(*(column.copy() for column in columns))


@pytest.fixture
def twins():
    """Queries 0 and 2 are one text; passages 0 and 3 are one text."""
    return RetrievalData(
        "twins",
        Texts(["a", "b", "c", "d"], ["open file", "close file", "sort table", "Open  FILE"]),
        Texts(["0", "1", "2"], ["how to open", "how to close", "How to OPEN"]),
        {"train": qrels((0, 0), (1, 1), (2, 2)), "test": qrels((1, 3))},
    )


def test_equal_texts_share_a_group_and_equal_queries_what_is_known(twins, encoder):
    text = prepare_text(twins, encoder)
    assert text.groups[0] == text.groups[3] and len(set(text.groups.tolist())) == 3
    assert text.query_groups[0] == text.query_groups[2] != text.query_groups[1]
    known = text.known_passages()
    assert [known[row].tolist() for row in range(3)] == [[0, 2], [1], [0, 2]]


def test_tokens_are_those_of_title_and_text(tiny_data, encoder):
    text = prepare_text(tiny_data, encoder)
    full = tiny_data.passages.full()
    assert full[0] == "open file\n" + tiny_data.passages.texts[0]
    assert np.array_equal(text.passage_tokens.values, encoder.tokenize(full, kind="passage").values)
    assert len(text.query_tokens) == len(tiny_data.queries)


def test_text_without_a_token_is_named(twins, encoder):
    empty = dataclasses.replace(twins, passages=Texts(["a", "b", "c", "d"], ["open", "!!", "sort", "?"]))
    with pytest.raises(InputError, match=r"passage 'b': no token in '!!' \(2 of 4 texts\)"):
        prepare_text(empty, encoder)


def test_batch_size_is_checked_against_the_train_queries(twins, encoder):
    text = prepare_text(twins, encoder)
    assert text_pairs(text, batch_size=3, num_negatives=0).steps_per_epoch == 1
    with pytest.raises(
        InputError, match=r"training.batch_size 4; valid is 2 to 3, the train queries of 'twins'"
    ):
        text_pairs(text, batch_size=4, num_negatives=0)
