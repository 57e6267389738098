"""Figures become inline SVG in the page's colours, the same each time."""

from __future__ import annotations

import re
import subprocess
import sys

import matplotlib
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.reporting.figures import MAX_POINTS, Picture, canvas, picture, thin
from retrieval_cl.reporting.style import PALETTE, light


def draw(name: str, *, alt: str = "a line") -> Picture:
    with canvas(200) as (figure, axes):
        axes[0, 0].plot([1, 2, 3], [1, 3, 2], color=light("teal"), marker="o", label="$x <b> & id='y'")
        axes[0, 0].legend()
        return picture(figure, name=name, alt=alt)


def test_the_same_figure_gives_the_same_bytes():
    assert draw("a").svg == draw("a").svg


def test_colours_follow_the_page(read):
    svg = draw("a").svg
    assert "var(--teal)" in svg
    assert "var(--muted)" in svg
    assert not any(hexadecimal in svg for pair in PALETTE.values() for hexadecimal in pair)
    assert not re.search(r"#[0-9a-f]{6}", svg)


def test_svg_holds_no_address_and_no_style_of_its_own(read):
    svg = draw("a").svg
    assert "http" not in svg
    assert "<style" not in svg
    assert "font-family" not in svg
    read(svg)


def test_ids_of_two_pictures_never_meet_and_every_reference_is_answered(read):
    ids = []
    for name in ("a", "b"):
        svg = draw(name).svg
        own = [attributes["id"] for _, attributes in read(svg).tags if "id" in attributes]
        used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
        assert used == set(own)
        ids += own
    assert len(set(ids)) == len(ids) > 2


def test_alt_text_is_on_the_picture_and_names_are_text_not_mathematics(read):
    drawn = draw("a", alt='from "1" to <3>\x00')
    root = read(drawn.svg).all("svg")[0]
    assert root["role"] == "img"
    assert root["aria-label"] == 'from "1" to <3>\ufffd'
    assert "$x <b> & id='y'" in read(drawn.svg).text


def test_settings_of_the_process_are_put_back():
    before = dict(matplotlib.rcParams)
    draw("a")
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_never_imported():
    program = (
        "import sys, retrieval_cl.reporting.quickstart_report as r; print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 5 * MAX_POINTS))
def test_thinned_points_are_few_and_keep_a_straight_line(n):
    x = np.arange(n, dtype=np.float64)
    few, y = thin(x, 2 * x + 1)
    assert len(few) == min(n, MAX_POINTS)
    np.testing.assert_allclose(y, 2 * few + 1)
    assert np.all(np.diff(few) > 0)
