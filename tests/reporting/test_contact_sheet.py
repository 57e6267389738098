"""Contact sheets: one page or one picture, queries first, hits marked as right or wrong."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from retrieval_cl.core.errors import InputError
from retrieval_cl.reporting.contact_sheet import (
    BELOW,
    GAP,
    LINE,
    TILE,
    Tile,
    pair_sheet,
    sheet,
    write_contact_sheet,
)


def picture(colour: tuple[int, int, int], *, kind: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


RED, BLUE = picture((255, 0, 0)), picture((0, 0, 255), kind="JPEG")
ROWS = [
    [Tile(RED, "asked <b>"), Tile(BLUE, "0.9 cat", True), Tile(RED, "0.8 dog", False)],
    [Tile(BLUE, "other"), Tile(RED, "0.7")],
]


def test_page_shows_each_picture_with_its_caption_and_mark(tmp_path, read):
    write_contact_sheet(tmp_path / "s.html", ROWS, title="Nearest", note="By cosine.")
    found = read((tmp_path / "s.html").read_text())
    images = found.all("img")
    assert [image["alt"] for image in images] == ["asked <b>", "0.9 cat", "0.8 dog", "other", "0.7"]
    wanted = [RED, BLUE, RED, BLUE, RED]
    for image, expected in zip(images, wanted, strict=True):
        kind = "png" if expected is RED else "jpeg"
        assert image["src"] == f"data:image/{kind};base64,{base64.b64encode(expected).decode()}"
    marks = [figure["class"] for figure in found.all("figure")]
    assert marks == ["shot", "shot right", "shot wrong", "shot", "shot"]
    assert "By cosine." in found.text and "asked <b>" in found.text


def test_png_has_a_cell_for_each_tile_with_its_pixels(tmp_path):
    write_contact_sheet(tmp_path / "s.png", ROWS, title="unused")
    image = np.asarray(Image.open(tmp_path / "s.png"))
    assert image.shape == (2 * (TILE + LINE + GAP) + GAP, 3 * (TILE + GAP) + GAP, 3)

    def middle(line, column):
        top = GAP + line * (TILE + LINE + GAP) + TILE // 2
        return image[top, GAP + column * (TILE + GAP) + TILE // 2].tolist()

    assert middle(0, 0) == [255, 0, 0] and middle(0, 2) == [255, 0, 0] and middle(1, 1) == [255, 0, 0]
    assert middle(0, 1)[2] > 240 and middle(0, 1)[0] < 15
    assert middle(1, 2) == [255, 255, 255]


def test_png_takes_pictures_of_any_shape_and_captions_of_any_length_and_script(tmp_path):
    wide = picture((0, 255, 0), size=(200, 20))
    write_contact_sheet(tmp_path / "s.png", [[Tile(wide, "猫 " + "long " * 30)], []], title="x")
    image = np.asarray(Image.open(tmp_path / "s.png"))
    assert image[GAP + TILE // 2, GAP + TILE // 2].tolist() == [0, 255, 0]
    assert image[GAP + 5, GAP + TILE // 2].tolist() == [255, 255, 255]
    # No letter stands beyond the tile.
    assert (image[:, GAP + TILE + 1 :] == 255).all()


def test_tile_without_a_picture_stands_in_the_page_as_its_words(tmp_path, read):
    rows = [[Tile(None, "a <red> shoe"), Tile(RED, "0.9"), Tile(None, "0.8 a boot", True)]]
    write_contact_sheet(tmp_path / "s.html", rows, title="Nearest")
    found = read((tmp_path / "s.html").read_text())
    assert [figure["class"] for figure in found.all("figure")] == ["shot words", "shot", "shot words right"]
    assert len(found.all("img")) == 1
    assert "a <red> shoe" in found.text and "0.8 a boot" in found.text


def test_tile_without_a_picture_is_drawn_as_its_words_in_its_square(tmp_path):
    long = "猫 " + "words in several lines " * 20 + "w" * 200
    rows = [[Tile(None, "a"), Tile(None, ""), Tile(None, "w" * 200), Tile(None, long)]]
    write_contact_sheet(tmp_path / "s.png", rows, title="unused")
    image = np.asarray(Image.open(tmp_path / "s.png").convert("L"))
    squares = [image[GAP : GAP + TILE, x : x + TILE] for x in range(GAP, image.shape[1] - GAP, TILE + GAP)]
    inked = [(square < 200).sum() for square in squares]
    assert inked[1] == 0 < inked[0] < inked[2] < inked[3]
    # The long text has lines down to the end of its square, and nothing is written beside any square.
    assert (squares[3][TILE - 2 * LINE :] < 200).any()
    for start in (0, *(GAP + (TILE + GAP) * number + TILE for number in range(4))):
        assert (image[:, start : start + GAP] == 255).all()
    assert (image[GAP + TILE :] == 255).all()


def test_long_captions_have_further_lines_below_their_pictures_within_bounds(tmp_path):
    def drawn(*captions):
        write_contact_sheet(tmp_path / "s.png", [[Tile(RED, one) for one in captions]], title="unused")
        return np.asarray(Image.open(tmp_path / "s.png").convert("L"))

    two, many = "0.26 a handwritten seven", "words " * 100
    assert drawn("0.26").shape[0] == drawn("").shape[0] == GAP + TILE + LINE + GAP
    image = drawn(two, "0.9")
    assert image.shape[0] == GAP + TILE + 2 * LINE + GAP
    second = image[GAP + TILE + LINE + 1 :]
    assert (second[:, : GAP + TILE] < 200).any() and (second[:, GAP + TILE :] == 255).all()
    assert drawn(many, two).shape[0] == GAP + TILE + BELOW * LINE + GAP


def test_other_endings_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"s\.gif: a contact sheet is a file that ends in \.html or \.png"):
        write_contact_sheet(tmp_path / "s.gif", ROWS, title="x")
    assert not list(tmp_path.iterdir())


def test_nothing_to_show_is_no_sheet(tmp_path):
    assert sheet([]) == sheet([[]]) == pair_sheet([]) == []
    write_contact_sheet(tmp_path / "s.png", [], title="x")
    write_contact_sheet(tmp_path / "s.html", [], title="x")
    assert "<img" not in (tmp_path / "s.html").read_text()
