import pytest
import torch
from slow_loops import Options, draw_contrast, is_negative, slow_positives

from retrieval_cl.core.layout import TileSize, lay_out


@pytest.mark.parametrize("size", [TileSize(2, 3), TileSize(7, 100), TileSize(100, 1)], ids=str)
def test_matches_and_padding_of_shared_tiles_bar_exactly_what_is_no_negative(size):
    options = Options(negatives=True, duplicates=True, padding=True, several_known=True)
    contrast = draw_contrast(options, seed=1)
    layout = lay_out(contrast, size)
    seen = 0
    for number, tile in enumerate(layout.tiles):
        width = tile.stop - tile.start
        for chunk, (low, high) in enumerate(layout.chunks):
            allowed = torch.ones(high - low, width, dtype=torch.bool)
            allowed.view(-1)[layout.matches_of(number, chunk)] = False
            allowed[:, layout.padding_of(number)] = False
            for row in range(high - low):
                for column in range(width):
                    seen += 1
                    wanted = is_negative(contrast, low + row, tile.first + column)
                    assert bool(allowed[row, column]) == wanted
    assert seen == len(contrast.targets) * contrast.bank.num_columns


def test_tiles_cover_every_column_once_and_never_cross_a_part():
    contrast = draw_contrast(Options(negatives=True, padding=True, private=True), seed=1)
    layout = lay_out(contrast, TileSize(3, 4))
    starts = contrast.bank.starts
    columns = []
    for tile in layout.tiles:
        assert tile.first == starts[tile.part] + tile.start
        assert 0 < tile.stop - tile.start <= 4
        assert tile.stop <= len(contrast.bank.parts[tile.part].ids)
        columns += range(tile.first, tile.first + tile.stop - tile.start)
    assert columns == list(range(contrast.bank.num_columns))


@pytest.mark.parametrize("all_positives", [False, True])
def test_the_positives_of_a_tile_lie_in_it_and_targets_are_found_among_them(all_positives):
    contrast = draw_contrast(Options(negatives=True, private=True, repeats=True), seed=1)
    layout = lay_out(contrast, TileSize(3, 4), all_positives=all_positives)
    found = set()
    for number, tile in enumerate(layout.tiles):
        pairs = layout.positives.where(layout.positive_slice(number))
        assert bool(((pairs.columns >= tile.first) & (pairs.columns < tile.first + 4)).all())
        found |= set(zip(pairs.anchors.tolist(), pairs.columns.tolist(), strict=True))
    rows = slow_positives(contrast, "sum" if all_positives else "target")
    assert found == {(a, c) for a, row in enumerate(rows) for c, matched in enumerate(row) if matched}
    assert len(layout.positives.anchors) == len(found)
    assert layout.positives.anchors[layout.targets].tolist() == list(range(7))
    assert torch.equal(layout.positives.columns[layout.targets], contrast.targets)


def test_private_negatives_lie_in_private_tiles():
    contrast = draw_contrast(Options(negatives=True, private=True, duplicates=True), seed=1)
    layout = lay_out(contrast, TileSize(3, 4))
    total = 0
    for number, tile in enumerate(layout.tiles):
        pairs = layout.private.where(layout.private_slice(number))
        assert len(pairs.anchors) == 0 or not tile.shared
        assert bool(((pairs.columns >= tile.first) & (pairs.columns < tile.first + 4)).all())
        total += len(pairs.anchors)
    assert total == len(layout.private.anchors) > 0
