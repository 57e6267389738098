"""Every colour that carries text can be read, in light and in dark."""

from __future__ import annotations

import pytest

from retrieval_cl.reporting.style import PALETTE, colour_of, score_colour_of, style_sheet

TEXT = ("ink", "muted", "teal", "slate", "ochre", "indigo", "brick")


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", TEXT)
def test_text_colour_has_contrast_of_4_5_on_its_grounds(name, side):
    for ground in ("paper", "panel"):
        assert contrast(PALETTE[name][side], PALETTE[ground][side]) >= 4.5, ground


def test_light_colours_differ_so_that_figures_can_be_recoloured():
    lights = [light for light, _ in PALETTE.values()]
    assert len(set(lights)) == len(lights)


def test_style_sheet_fetches_nothing_and_its_braces_match():
    css = style_sheet()
    assert "url(" not in css
    assert "@import" not in css
    assert "http" not in css
    assert "</" not in css
    assert css.count("{") == css.count("}")


def test_dark_comes_after_light_and_only_on_screens():
    css = style_sheet()
    assert css.index(PALETTE["paper"][0]) < css.index("@media screen and (prefers-color-scheme: dark)")
    assert css.index("prefers-color-scheme: dark") < css.index(PALETTE["paper"][1])


def test_systems_and_score_groups_have_their_own_colours():
    assert len({colour_of(name) for name in ("bm25", "control", "mined", "hybrid")}) == 4
    assert len({score_colour_of(name) for name in ("positives", "in-batch", "mined")}) == 3
    assert colour_of("mine", index=0) != colour_of("yours", index=1)
    assert all(colour_of("mine", index=index) != colour_of("bm25") for index in range(9))
