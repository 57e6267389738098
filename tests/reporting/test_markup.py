"""Plain text never becomes markup."""

from __future__ import annotations

from html import unescape

from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.reporting.markup import Html, element, escape, join, readable


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")))
def test_escaped_text_reads_as_it_was_and_opens_no_tag(text):
    safe = escape(text)
    assert not set("<>\"'") & set(safe)
    assert unescape(safe) == text


def test_text_is_escaped_in_children_and_attributes():
    assert element("p", "<script>", title='"><b>') == '<p title="&quot;&gt;&lt;b&gt;">&lt;script&gt;</p>'


def test_markup_is_not_escaped_twice():
    assert element("p", element("b", "&")) == "<p><b>&amp;</b></p>"
    assert join(["<", Html("<br>")], between="&") == "&lt;&amp;<br>"


def test_python_names_become_attribute_names():
    assert element("meta", http_equiv="x", class_="y") == '<meta http-equiv="x" class="y">'


def test_what_utf8_or_html_cannot_hold_is_replaced():
    assert readable("a\x00b\x1b\ud800c\r\nd\te") == "a\ufffdb\ufffd?c\nd\te"
    readable("\udfff").encode("utf8")
