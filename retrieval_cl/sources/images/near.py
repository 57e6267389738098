"""Images that look alike: pairs by a perceptual hash, checked on thumbnails, or by vectors of an encoder."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from retrieval_cl.core.images import Images

READ_ROWS = 2048
HASH_BITS, HASH_SHAPE = 64, (8, 9)
THUMB_SIDE = 16
# Tiles of the square of all pairs: their scores are 64 MB.
TILE_ROWS, TILE_COLUMNS = 2048, 8192
CPU = torch.device("cpu")


def near_by_hash(
    images: Images,
    *,
    max_distance: int = 8,
    min_correlation: float = 0.95,
    device: torch.device = CPU,
) -> Int64[np.ndarray, "P 2"]:
    """Pairs (row, later row) whose difference hashes differ in few bits and whose thumbnails correlate.

    The hash (dHash) says of 8 x 8 places whether grey rises to the right. Unlike images may collide, so
    pairs count only where their 16 x 16 colour thumbnails correlate as well. Images of one colour have no
    correlation: only equal pixels make them copies.

    Args:
        images: of all splits.
        max_distance: bits of 64 that may differ.
        min_correlation: of the thumbnails' values, -1 to 1.
        device: where pairs are compared.
    """
    assert 0 <= max_distance < HASH_BITS // 2, max_distance
    hashes, thumbs = (part.to(device) for part in _looks(images))
    pairs = torch.cat(
        [
            pair[(thumbs[pair[:, 0]] * thumbs[pair[:, 1]]).sum(dim=1) >= min_correlation]
            for pair in _similar(hashes, least=HASH_BITS - 2 * max_distance - 0.5)
        ]
    )
    return pairs.cpu().numpy()


def near_by_vectors(
    vectors: Float[np.ndarray, "N D"], *, min_cosine: float, device: torch.device = CPU
) -> Int64[np.ndarray, "P 2"]:
    """Pairs (row, later row) of unit vectors with at least this cosine."""
    rows = torch.from_numpy(vectors).to(device)
    return torch.cat(list(_similar(rows, least=min_cosine))).cpu().numpy()


def difference_hashes(images: Images) -> Float[Tensor, "N 64"]:
    """The hash of each image, its bits as -1 and 1; (64 - product) / 2 is the number of bits that differ."""
    return _looks(images)[0]


def _looks(images: Images) -> tuple[Float[Tensor, "N 64"], Float[Tensor, "N T"]]:
    """Hashes and thumbnails of all images, the latter as unit rows without their mean colour."""
    hashes, thumbs = [], []
    for start in range(0, len(images), READ_ROWS):
        rows = np.arange(start, min(start + READ_ROWS, len(images)), dtype=np.int64)
        pixels = images.take(rows).float()
        grey = (pixels * pixels.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
        places = _resized(grey, HASH_SHAPE)[:, 0]
        hashes.append(torch.where(places[:, :, 1:] > places[:, :, :-1], 1.0, -1.0).flatten(1))
        small = _resized(pixels, (THUMB_SIDE, THUMB_SIDE))
        # Of each channel: else what all blue skies have in common outweighs what flies in them.
        centred = small - small.mean(dim=(2, 3), keepdim=True)
        thumbs.append(functional.normalize(centred.flatten(1), dim=1, eps=1.0))
    return torch.cat(hashes), torch.cat(thumbs)


def _resized(images: Float[Tensor, "B C H W"], shape: tuple[int, int]) -> Float[Tensor, "B C h w"]:
    return functional.interpolate(images, size=shape, mode="bilinear", antialias=True)


def _similar(rows: Float[Tensor, "N D"], *, least: float) -> Iterator[Int64[Tensor, "P 2"]]:
    """Pairs (row, later row) whose product is at least `least`, tile by tile."""
    for top in range(0, len(rows), TILE_ROWS):
        for left in range(top - top % TILE_COLUMNS, len(rows), TILE_COLUMNS):
            scores = rows[top : top + TILE_ROWS] @ rows[left : left + TILE_COLUMNS].T
            found = (scores >= least).nonzero() + torch.tensor([top, left], device=rows.device)
            yield found[found[:, 0] < found[:, 1]]
