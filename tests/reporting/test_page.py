"""A page is whole, well-formed and quiet."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_cl.reporting.markup import Html
from retrieval_cl.reporting.page import Cell, Page, code, definitions, paragraph, table, tiles, verdict


def small() -> Page:
    page = Page("A & B", over="run <1>")
    page.lead(paragraph("lead", kind="lead"), tiles([("0.5", "BM25", "note", "teal")]))
    page.section(
        "One", table(["name", "n"], [["a", "1"], ["b", Cell("2", note="low", best=True)]], caption="c")
    )
    page.section("Two", code("a < b"), definitions({"k": "v"}), verdict("fine", kind="good"))
    return page


def test_page_is_well_formed_and_names_its_sections(read):
    found = read(small().render())
    assert "A & B" in found.text
    assert "run <1>" in found.text
    assert "a < b" in found.text
    assert [link["href"] for link in found.all("a")] == ["#s1", "#s2"]
    assert [section["id"] for section in found.all("section")] == ["s1", "s2"]


def test_page_forbids_the_browser_to_fetch(read):
    policy = [meta for meta in read(small().render()).all("meta") if "http-equiv" in meta]
    assert len(policy) == 1
    assert str(policy[0]["content"]).startswith("default-src 'none'")


def test_numbers_are_aligned_right_and_the_best_stands_out(read):
    html = table(["name", "n"], [["a", "1"], ["b", Cell("2", note="low", best=True)]])
    assert [cell.get("class") for cell in read(html).all("td")] == [None, "num", None, "num best"]
    assert [cell.get("class") for cell in read(html).all("th")] == [None, "num"]


def test_a_share_is_drawn_as_a_bar_of_its_width_and_never_leaves_its_cell():
    html = table(["", ""], [["a", Cell("", share=0.25)], ["b", Cell("", share=3.0)]], text_columns=2)
    assert "width:25.0%" in html
    assert "width:100.0%" in html


def test_a_row_with_a_cell_too_many_is_a_mistake():
    with pytest.raises(AssertionError):
        table(["name"], [["a", "b"]])


def test_a_section_with_nothing_to_say_is_left_out(read):
    page = Page("t")
    page.section("empty")
    assert "empty" not in page.render()
    assert read(page.render()).all("nav") == []


def test_a_disk_full_while_writing_leaves_the_old_page_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "report.html"
    small().write(path)
    before = path.read_bytes()

    def full(self: Path, text: str, **_: object) -> int:
        self.write_bytes(text[:100].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        Page("new").write(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_pieces_are_markup():
    assert isinstance(paragraph("x"), Html)
