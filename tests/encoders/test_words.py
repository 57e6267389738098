from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.encoders.splitting import make_normalizer, make_pre_tokenizer
from retrieval_cl.encoders.words import count_words, split_words


def split_by_tokenizers(text):
    return [word for word, _ in make_pre_tokenizer().pre_tokenize_str(make_normalizer().normalize_str(text))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("camelCase snake_case", "camel case snake case"),
        ("HTTPServer getURLFor ABc aB", "http server get url for a bc a b"),
        ("utf8 sha256Hash x2Y 3.14", "utf 8 sha 256 hash x 2 y 3 14"),
        ("don't __init__(self, *args)", "don t init self arg"),
        (
            "files FileReaders classes status gas is __args_2s",
            "file file reader classe status gas is arg 2 s",
        ),
        ("naïve Ünïcode éÉ", "naïve ünïcode é é"),
        ("\ufb01le \uff11\uff12", "file 12"),
        ("日本 abc", "日 本 abc"),
        ("e\u0301te\u0301 हिन्दी", "été हिन्दी"),
        ("", ""),
        (" \t_-\n", ""),
    ],
)
def test_words_come_apart_as_in_code(text, words):
    assert split_words([text]) == [words.split()]


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_short_cut_equals_the_tokenizers_rules(text):
    assert split_words([text]) == [split_by_tokenizers(text)]


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet="aBC1_ é"))
def test_case_borders_do_not_depend_on_other_letters_in_the_text(text):
    # One letter that is not ASCII sends the whole text the other way.
    assert split_words([f"{text} ß"])[0] == [*split_words([text])[0], "ß"]


def test_split_words_keeps_one_list_a_text():
    assert split_words(["a b", "", "b"]) == [["a", "b"], [], ["b"]]


def test_count_words_counts_what_split_words_gives(corpus):
    assert count_words(corpus) == Counter(word for words in split_words(corpus) for word in words)
    assert count_words(corpus)["naïve"] == 1
