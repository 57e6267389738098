"""A page: one HTML file with its style and its pictures inside, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from retrieval_cl.core.files import new_file
from retrieval_cl.reporting.figures import Picture
from retrieval_cl.reporting.markup import Html, element, escape, join
from retrieval_cl.reporting.style import style_sheet

Verdict = Literal["good", "plain", "bad"]
# A second fence behind escaping: a browser that honours it loads nothing, whatever the page says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@final
@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: What stands in it.
        note: A second, smaller line; empty for none.
        aside: Smaller text before it on the same line, such as a share; empty for none.
        best: Emphasised as the best of its column.
        share: Drawn as a bar of this share (0 to 1) of the cell's width instead of the text.
    """

    text: str
    note: str = ""
    aside: str = ""
    best: bool = False
    share: float | None = None


Row = Sequence[str | Cell]


@final
class Page:
    """Collects sections in reading order; `write` makes the file."""

    def __init__(self, title: str, *, over: str = "") -> None:
        """Starts a page with its title and a small line over it."""
        self._title = title
        self._over = over
        self._lead: Html = Html("")
        self._sections: list[tuple[str, Html]] = []

    def lead(self, *pieces: Html) -> None:
        """Sets what stands under the title, before the list of sections."""
        self._lead = join(pieces)

    def section(self, heading: str, *pieces: Html) -> None:
        """Adds a section; without pieces there is nothing to say and nothing is added."""
        if pieces:
            self._sections.append((heading, join(pieces)))

    def render(self) -> str:
        """The whole HTML document."""
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("link", rel="icon", href="data:,"),
            element("title", self._title),
            element("style", Html(style_sheet())),
        )
        over = (element("p", self._over, class_="over"),) if self._over else ()
        header = element("header", *over, element("h1", self._title), self._lead, self._contents())
        sections = [
            element("section", element("h2", heading), body, id=f"s{number}")
            for number, (heading, body) in enumerate(self._sections, start=1)
        ]
        body = element("body", element("main", header, *sections))
        return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"

    def write(self, path: Path) -> None:
        """Writes the page, whole or not at all."""
        with new_file(path) as part:
            part.write_text(self.render(), encoding="utf8")

    def _contents(self) -> Html:
        links = [
            element("a", heading, href=f"#s{number}")
            for number, (heading, _) in enumerate(self._sections, start=1)
        ]
        return element("nav", *links, aria_label="Sections") if links else Html("")


def paragraph(*pieces: str, kind: Literal["", "lead", "note"] = "") -> Html:
    """A paragraph of text and inline markup."""
    return element("p", *pieces, **({"class_": kind} if kind else {}))


def subheading(text: str) -> Html:
    """A heading inside a section."""
    return element("h3", text)


def verdict(*pieces: str, kind: Verdict = "plain") -> Html:
    """The one sentence of a section that a hurried reader should see."""
    return element("p", *pieces, class_=f"verdict {kind}")


def code(text: str) -> Html:
    """A block of commands or source, line breaks kept."""
    return element("pre", text)


def definitions(items: Mapping[str, str]) -> Html:
    """A list of names and what they are."""
    return element(
        "dl", *(join((element("dt", name), element("dd", value))) for name, value in items.items())
    )


def figure(picture: Picture, *, caption: str) -> Html:
    """A picture with its caption; the picture carries its own text for readers who cannot see it."""
    return element("figure", element("div", picture.svg, class_="wide"), element("figcaption", caption))


def table(headings: Sequence[str], rows: Sequence[Row], *, text_columns: int = 1, caption: str = "") -> Html:
    """A table whose first `text_columns` columns are text; all further ones are numbers, aligned right.

    Every row has one cell a heading; a plain string is a cell without note.
    """
    assert all(len(row) == len(headings) for row in rows), [len(row) for row in rows]
    head = element("tr", *(_heading(text, column >= text_columns) for column, text in enumerate(headings)))
    body = [
        element("tr", *(_cell(_as_cell(cell), column >= text_columns) for column, cell in enumerate(row)))
        for row in rows
    ]
    below = (element("caption", caption),) if caption else ()
    inner = element("table", *below, element("thead", head), element("tbody", *body))
    return element("div", inner, class_="wide")


def tiles(items: Sequence[tuple[str, str, str, str]]) -> Html:
    """Headline numbers as (number, name, note, palette colour)."""
    return element("div", *(_tile(*item) for item in items), class_="tiles")


def _tile(number: str, name: str, note: str, colour: str) -> Html:
    return element(
        "div",
        element("b", number),
        element("span", name),
        element("span", note, class_="note"),
        class_="tile",
        style=f"border-top-color:var(--{colour})",
    )


def _as_cell(cell: str | Cell) -> Cell:
    return Cell(cell) if isinstance(cell, str) else cell


def _heading(text: str, numeric: bool) -> Html:
    return element("th", text, scope="col", **({"class_": "num"} if numeric else {}))


def _cell(cell: Cell, numeric: bool) -> Html:
    if cell.share is not None:
        bar = element("span", class_="bar", style=f"width:{100 * min(1.0, max(0.0, cell.share)):.1f}%")
        return element("td", bar, class_="span")
    words = [word for word, wanted in (("num", numeric), ("best", cell.best)) if wanted]
    aside = (element("span", cell.aside, class_="aside"),) if cell.aside else ()
    note = (element("small", cell.note),) if cell.note else ()
    return element("td", *aside, escape(cell.text), *note, **({"class_": " ".join(words)} if words else {}))
