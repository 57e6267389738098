"""Contact sheets: what was asked for and what was found, images or texts, as one HTML page or one PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from PIL import Image, ImageDraw, ImageFont

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_file
from retrieval_cl.reporting.markup import Html, element
from retrieval_cl.reporting.page import Page, paragraph

TILE, GAP, LINE, MARGIN = 96, 8, 14, 4  # px
BELOW = 3
"""Lines of a caption below its picture, at most."""
SUFFIXES = (".html", ".png")
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@final
@dataclass(frozen=True)
class Tile:
    """One picture or text of a sheet.

    Attributes:
        picture: a JPEG or PNG file; None: the caption stands in its place.
        caption: below the picture.
        is_right: whether it matches the first of its row; None where that is not known.
    """

    picture: bytes | None
    caption: str
    is_right: bool | None = None


def write_contact_sheet(path: Path, rows: Sequence[Sequence[Tile]], *, title: str, note: str = "") -> None:
    """Writes the sheet; the first tile of a row is what was asked for, its hits follow, best first.

    Raises:
        InputError: the file ends in neither .html nor .png.
    """
    check_suffix(path)
    if path.suffix == ".png":
        _write_png(path, rows)
        return
    page = Page(title, over="retrieval-cl contact sheet")
    page.lead(*([paragraph(note, kind="lead")] if note else []))
    page.section("Neighbours", *sheet(rows))
    page.write(path)


def sheet(rows: Sequence[Sequence[Tile]]) -> list[Html]:
    """The rows as part of a page: what was asked for, and its hits beside it; empty where there are none."""
    return [element("div", *(_row(row) for row in rows if row), class_="sheet")] if any(rows) else []


def pair_sheet(pairs: Sequence[Sequence[Tile]]) -> list[Html]:
    """Pairs of pictures as part of a page, several beside each other; empty where there are none."""
    return [element("div", *(_row(pair) for pair in pairs), class_="sheet pairs")] if pairs else []


def check_suffix(path: Path) -> None:
    """Raises InputError where a contact sheet cannot have this name."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a contact sheet is a file that ends in {' or '.join(SUFFIXES)}")


def _row(tiles: Sequence[Tile]) -> Html:
    hits = element("div", *(_tile(tile) for tile in tiles[1:]), class_="hits")
    return element("div", _tile(tiles[0]), hits, class_="shots")


def _tile(tile: Tile) -> Html:
    mark = {None: "", True: " right", False: " wrong"}[tile.is_right]
    caption = element("figcaption", tile.caption)
    if tile.picture is None:
        return element("figure", caption, class_=f"shot words{mark}")
    kind = "png" if tile.picture.startswith(b"\x89PNG") else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(tile.picture).decode()}"
    return element("figure", element("img", src=source, alt=tile.caption), caption, class_=f"shot{mark}")


def _write_png(path: Path, rows: Sequence[Sequence[Tile]]) -> None:
    columns = max((len(row) for row in rows), default=1)
    # As many lines below pictures as the longest caption of the sheet needs, within bounds.
    below = max((len(_lines(tile, room=BELOW)) for row in rows for tile in row if tile.picture), default=1)
    width, height = TILE + GAP, TILE + max(1, below) * LINE + GAP
    sheet = Image.new("RGB", (columns * width + GAP, len(rows) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for line, row in enumerate(rows):
        for column, tile in enumerate(row):
            _draw(tile, sheet, draw, left=GAP + column * width, top=GAP + line * height)
    with new_file(path) as part:
        sheet.save(part, format="PNG")


def _draw(tile: Tile, sheet: Image.Image, draw: ImageDraw.ImageDraw, *, left: int, top: int) -> None:
    """Draws a picture with its caption below, or the caption in the place of the picture."""
    colour = {None: "#444444", True: "#1a7f37", False: "#c0392b"}[tile.is_right]
    if tile.picture is None:
        draw.rectangle((left, top, left + TILE - 1, top + TILE - 1), fill="#f3f3f3")
        left, top = left + MARGIN, top + MARGIN
        lines = _lines(tile, room=(TILE - 2 * MARGIN) // LINE, width=TILE - 2 * MARGIN)
    else:
        sheet.paste(_fitted(tile.picture), (left, top))
        top += TILE + 1
        lines = _lines(tile, room=BELOW)
    for number, line in enumerate(lines):
        draw.text((left, top + number * LINE), line, fill=colour)


def _lines(tile: Tile, *, room: int, width: int = TILE) -> list[str]:
    """The caption in lines of that many pixels, shortened where it needs more than there is room for."""
    font = ImageFont.load_default()
    lines: list[str] = []
    for word in tile.caption.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"{lines[room - 1]} {lines[room]}"]
    return [_cut(line, font, width=width) for line in lines]


def _cut(text: str, font: Font, *, width: int) -> str:
    """The text, shortened until it is no wider than that, in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _fitted(picture: bytes) -> Image.Image:
    """The picture scaled to a tile's longer side, in the middle of a white square."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", (TILE, TILE), "white")
    # Small images as blocks, so that nothing is shown that is not there.
    resized = image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
    square.paste(resized, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return square
