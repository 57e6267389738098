"""Safe HTML from plain text: a string is escaped unless it is `Html`, and only `element` makes `Html`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import final

# HTML has no place for these, escaped or not; tab and line feed stay.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")
_VOID = frozenset({"br", "hr", "img", "meta", "link", "wbr"})


@final
class Html(str):
    """Markup that is safe to put into a page as it is."""

    __slots__ = ()


def escape(text: str) -> Html:
    """The text as markup; `Html` passes unchanged."""
    if isinstance(text, Html):
        return text
    return Html(html.escape(readable(text), quote=True))


def readable(text: str) -> str:
    """The text with lone surrogates and control characters replaced: what HTML and UTF-8 can hold."""
    kept = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
    return kept.encode("utf8", "replace").decode("utf8")


def join(pieces: Iterable[str], *, between: str = "") -> Html:
    """The pieces one after another, each escaped."""
    return Html(escape(between).join(escape(piece) for piece in pieces))


def element(tag: str, *children: str, **attributes: str) -> Html:
    """`<tag ...>children</tag>`; `class_` becomes `class`, `aria_label` becomes `aria-label`."""
    words = "".join(f' {_attribute(name)}="{escape(str(value))}"' for name, value in attributes.items())
    if tag in _VOID:
        assert not children, tag
        return Html(f"<{tag}{words}>")
    return Html(f"<{tag}{words}>{join(children)}</{tag}>")


def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")
