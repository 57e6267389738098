import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.core.relations import Ragged
from retrieval_cl.sources.normalise import (
    group_members,
    group_rows,
    merge_rows,
    normalise_text,
    passage_groups,
    query_groups,
    text_groups,
)
from retrieval_cl.sources.records import RetrievalData, Texts


def slow_groups(num_rows, edges):
    """Union-find without any trick: the smallest row reachable."""
    group = list(range(num_rows))
    changed = True
    while changed:
        changed = False
        for left, right in edges:
            low = min(group[left], group[right])
            changed |= group[left] != low or group[right] != low
            group[left] = group[right] = low
    return group


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("  Read\tthe\n\nFILE ", "read the file"),
        ("ﬁle", "FILE"),
        ("Straße", "STRASSE"),
        ("cafe\u0301", "CAFÉ"),
        ("\uff46\uff55\uff4c\uff4c\u3000width", "full width"),
        ("no\u00a0break", "no break"),
    ],
)
def test_spellings_of_one_text_are_equal(one, two):
    assert normalise_text(one) == normalise_text(two)


@pytest.mark.parametrize(("one", "two"), [("a b", "ab"), ("f(x)", "f x"), ("café", "cafe"), ("a-b", "a b")])
def test_different_texts_stay_different(one, two):
    assert normalise_text(one) != normalise_text(two)


@settings(deadline=None, max_examples=100)
@given(st.text())
def test_normalising_twice_changes_nothing(text):
    once = normalise_text(text)
    assert normalise_text(once) == once


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_the_short_way_for_ascii_equals_the_long_way(text):
    marked = normalise_text(text + " é")
    assert marked == f"{normalise_text(text)} é".strip()


def test_rows_with_equal_text_are_named_by_the_first():
    assert text_groups(["A b", "c", "a  B", "C", "d"]).tolist() == [0, 1, 0, 1, 4]


def test_texts_and_the_relation_are_chained():
    equal = Ragged.from_lists([[], [], [], [1], []])
    # 3 is a copy of 1 by relation, 1 has the text of 4; row 0 and row 2 stand alone.
    assert group_rows(["u", "v", "w", "x", "V"], equal=equal).tolist() == [0, 1, 2, 1, 1]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
    )
)
def test_merged_rows_equal_a_slow_union_find(case):
    num_rows, edges = case
    left, right = (np.array([edge[side] for edge in edges], dtype=np.int64) for side in (0, 1))
    groups = merge_rows(left, right, num_rows)
    assert groups.tolist() == slow_groups(num_rows, edges)
    members = group_members(groups)
    for row in range(num_rows):
        assert members[row].tolist() == [other for other in range(num_rows) if groups[other] == groups[row]]


def test_passages_are_compared_with_their_titles_and_queries_by_text():
    data = RetrievalData(
        name="x",
        passages=Texts(["1", "2", "3", "4"], ["t", "T", "t", "u"], ["a", "b", "A", "c"]),
        queries=Texts(["1", "2"], ["q ?", "Q ?"]),
        splits={},
        equal=Ragged.from_lists([[0], [1, 3], [2], [1, 3]]),
    )
    assert passage_groups(data).tolist() == [0, 1, 0, 1]
    assert query_groups(data).tolist() == [0, 0]
