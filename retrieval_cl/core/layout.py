"""How a contrast is cut into tiles, and which entries of each tile are no negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from retrieval_cl.core.contrast import Bank, Contrast
from retrieval_cl.core.identity import (
    Pairs,
    column_ids,
    join,
    known_hits,
    positive_pairs,
    private_negatives,
    target_pairs,
)
from retrieval_cl.core.ranks import num_ranks


@dataclass(frozen=True)
class TileSize:
    """Anchors and bank columns of one tile of logits."""

    rows: int
    columns: int


@dataclass(frozen=True)
class Tile:
    """Columns `first` .. `first + stop - start` of the bank: rows `start` .. `stop` of one part."""

    part: int
    start: int
    stop: int
    first: int
    shared: bool


@dataclass(frozen=True, eq=False)
class Slices:
    """Indices sorted by cell; the indices of cell i are `values[bounds[i]:bounds[i + 1]]`."""

    values: Int64[Tensor, " H"]
    bounds: list[int]

    def to(self, device: torch.device) -> Slices:
        """The same on a device; the host does not wait for the copy."""
        return Slices(self.values.to(device, non_blocking=True), self.bounds)

    def of(self, cell: int) -> Int64[Tensor, " n"]:
        """The indices of one cell."""
        return self.values[self.bounds[cell] : self.bounds[cell + 1]]


@dataclass(frozen=True, eq=False)
class Layout:
    """The tiles of a contrast, in the order they are visited: column tiles outside, chunks of anchors inside.

    Attributes:
        tiles: the column tiles; each lies in one part.
        chunks: first and last + 1 anchor of each chunk.
        num_columns: of the whole bank.
        positives: each anchor with its target, or with all its positives; sorted by tile.
        targets: place of each anchor's target among `positives`.
        private: private negatives of each anchor, sorted by tile.
    """

    tiles: tuple[Tile, ...]
    chunks: tuple[tuple[int, int], ...]
    num_columns: int
    positives: Pairs
    targets: Int64[Tensor, " A"]
    private: Pairs
    _positive_bounds: list[int]
    _private_bounds: list[int]
    _matches: Slices
    _padding: Slices

    @property
    def shared_tiles(self) -> list[int]:
        """Numbers of the tiles of shared parts."""
        return [number for number, tile in enumerate(self.tiles) if tile.shared]

    def may_have_positives(self, tile: int) -> bool:
        """Whether a positive of any rank may lie in a tile: what another rank's are is not known here."""
        return num_ranks() > 1 or self._positive_bounds[tile] < self._positive_bounds[tile + 1]

    def positive_slice(self, tile: int) -> slice:
        """Where `positives` holds the pairs of a tile."""
        return slice(self._positive_bounds[tile], self._positive_bounds[tile + 1])

    def private_slice(self, tile: int) -> slice:
        """Where `private` holds the pairs of a tile."""
        return slice(self._private_bounds[tile], self._private_bounds[tile + 1])

    def matches_of(self, tile: int, chunk: int) -> Int64[Tensor, " n"]:
        """Places in the flat tile of logits whose column is the anchor's target or carries an id it knows."""
        return self._matches.of(tile * len(self.chunks) + chunk)

    def padding_of(self, tile: int) -> Int64[Tensor, " n"]:
        """Columns, counted from the tile's first, with id -1."""
        return self._padding.of(tile)


@torch.no_grad()
def lay_out(contrast: Contrast, size: TileSize, *, all_positives: bool = False) -> Layout:
    """Cuts a contrast into tiles and looks up its ids.

    It works where the ids lie and waits for results there; what it gives lies beside the vectors. Ids on the
    host therefore cost a GPU no wait.

    Args:
        contrast: its ids, known ids, targets and own columns lie on one device.
        size: of a tile.
        all_positives: every column that carries a known id is a positive; else the target alone is.
    """
    num_anchors, home = len(contrast.targets), contrast.anchors.device
    tiles = _cut_bank(contrast.bank, size.columns)
    chunks = tuple((low, min(low + size.rows, num_anchors)) for low in range(0, num_anchors, size.rows))
    firsts = torch.tensor([tile.first for tile in tiles], device=contrast.targets.device)
    targets = target_pairs(contrast)
    matches = join([targets, known_hits(contrast.known, contrast.bank)])
    positives = positive_pairs(contrast, matches) if all_positives else targets
    positives, positive_bounds = _sort_by_tile(positives, firsts)
    private, private_bounds = _sort_by_tile(private_negatives(contrast, matches), firsts)
    return Layout(
        tiles=tiles,
        chunks=chunks,
        num_columns=contrast.bank.num_columns,
        positives=positives.to(home),
        targets=_find(targets, positives, num_columns=contrast.bank.num_columns).to(home, non_blocking=True),
        private=private.to(home),
        _positive_bounds=positive_bounds,
        _private_bounds=private_bounds,
        _matches=_places(matches, tiles=tiles, firsts=firsts, rows=size.rows, num_chunks=len(chunks)).to(
            home
        ),
        _padding=_padding(contrast.bank, firsts).to(home),
    )


def _find(wanted: Pairs, pairs: Pairs, *, num_columns: int) -> Int64[Tensor, " A"]:
    """Where `pairs` holds each of the `wanted`."""
    keys, order = pairs.keys(num_columns).sort()
    return order[torch.searchsorted(keys, wanted.keys(num_columns))]


def _cut_bank(bank: Bank, width: int) -> tuple[Tile, ...]:
    return tuple(
        Tile(
            part=number,
            start=low,
            stop=min(low + width, len(part.ids)),
            first=first + low,
            shared=part.shared,
        )
        for number, (part, first) in enumerate(zip(bank.parts, bank.starts, strict=True))
        for low in range(0, len(part.ids), width)
    )


def _tile_of(columns: Int64[Tensor, " H"], firsts: Int64[Tensor, " T"]) -> Int64[Tensor, " H"]:
    return torch.searchsorted(firsts, columns, right=True) - 1


def _bounds(sorted_cells: Int64[Tensor, " H"], num_cells: int) -> list[int]:
    cells = torch.arange(num_cells + 1, device=sorted_cells.device)
    bounds: list[int] = torch.searchsorted(sorted_cells, cells).tolist()
    return bounds


def _sort_by_tile(pairs: Pairs, firsts: Int64[Tensor, " T"]) -> tuple[Pairs, list[int]]:
    cells, order = _tile_of(pairs.columns, firsts).sort(stable=True)
    return pairs.where(order), _bounds(cells, len(firsts))


def _places(
    matches: Pairs, *, tiles: Sequence[Tile], firsts: Int64[Tensor, " T"], rows: int, num_chunks: int
) -> Slices:
    tile = _tile_of(matches.columns, firsts)
    widths = torch.tensor([tile.stop - tile.start for tile in tiles], device=firsts.device)
    chunk = matches.anchors // rows
    places = (matches.anchors - chunk * rows) * widths[tile] + matches.columns - firsts[tile]
    cells, order = (tile * num_chunks + chunk).sort(stable=True)
    return Slices(places[order], _bounds(cells, len(tiles) * num_chunks))


def _padding(bank: Bank, firsts: Int64[Tensor, " T"]) -> Slices:
    columns = (column_ids(bank) < 0).nonzero().squeeze(1)
    tile = _tile_of(columns, firsts)
    return Slices(columns - firsts[tile], _bounds(tile, len(firsts)))
