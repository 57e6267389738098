"""Batches in clusters: an image and pairs mined for it; where there are none, more images of the epoch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from retrieval_cl.sources.images.order import epoch_order, part_copies

# Streams of random numbers that must not coincide; others of this folder stand in `batches`.
ORDER, TURNS = 0, 1


def cluster_order(
    rows: Int64[np.ndarray, " N"],
    groups: Int64[np.ndarray, " N"],
    *,
    batch_size: int,
    cluster: int,
    seed: int,
    epoch: int,
) -> Int64[np.ndarray, " M"]:
    """The images of an epoch's full batches, each at most once: of each batch the seeds, then the spare ones.

    In `cluster` epochs in a row, by turns drawn anew for them, each image is a seed in one (but for those
    left over after full batches). Where possible, no batch holds two images of one item.

    Args:
        rows: image rows.
        groups: item of each.
        batch_size: images of a batch, a multiple of `cluster`.
        cluster: images of a cluster; 1: all are seeds.
        seed: of the run.
        epoch: the number of this pass over the images.
    """
    generator = np.random.default_rng([seed, epoch, ORDER])
    steps, num_seeds = len(rows) // batch_size, batch_size // cluster
    around, turn = divmod(epoch, cluster)
    dealt = np.random.default_rng([seed, around, TURNS]).permutation(len(rows))
    seeds = dealt[turn::cluster].astype(np.int64)
    seeds = epoch_order(seeds, groups[seeds], batch_size=num_seeds, generator=generator)
    spare = generator.permutation(np.setdiff1d(np.arange(len(rows)), seeds))
    places = np.concatenate(
        [
            seeds[: steps * num_seeds].reshape(steps, num_seeds),
            spare[: steps * (batch_size - num_seeds)].reshape(steps, batch_size - num_seeds),
        ],
        axis=1,
    ).reshape(-1)
    part_copies(places, groups[places], batch_size=batch_size, generator=generator, fixed=num_seeds)
    chosen: Int64[np.ndarray, " M"] = rows[places]
    return chosen


def fill_clusters(
    rows: Int64[np.ndarray, " B"],
    mined: Int64[np.ndarray, "S n"],
    *,
    cluster: int,
    caption_images: Int64[np.ndarray, " C"],
    items: Int64[np.ndarray, " N"],
) -> tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, " B"]]:
    """Image rows and caption rows of a batch, cluster by cluster, the seed first.

    A mined pair is left out where the batch has an image of its item already: there it is a negative as it
    is. Empty places take spare images, those of items that the batch lacks first.

    Args:
        rows: seeds, then spare images, as `cluster_order` gives them.
        mined: caption rows for each seed, in the order in which they are tried; -1 is none.
        cluster: images of a cluster.
        caption_images: image row of each caption.
        items: item id of each image.

    Returns:
        The images; and of mined pairs the caption, -1 where the image brings any of its own.
    """
    seeds = rows[: len(rows) // cluster]
    held = set(items[seeds].tolist())
    images = np.full((len(seeds), cluster), -1, dtype=np.int64)
    captions = np.full((len(seeds), cluster), -1, dtype=np.int64)
    images[:, 0] = seeds
    for line, wanted in enumerate(mined.tolist()):
        place = 1
        for caption in wanted:
            image = int(caption_images[caption]) if caption >= 0 else -1
            if place == cluster or image < 0 or int(items[image]) in held:
                continue
            held.add(int(items[image]))
            images[line, place], captions[line, place] = image, caption
            place += 1
    empty = images < 0
    images[empty] = _fresh_first(rows[len(seeds) :], items, held)[: np.count_nonzero(empty)]
    return images.reshape(-1), captions.reshape(-1)


def _fresh_first(
    rows: Int64[np.ndarray, " R"], items: Int64[np.ndarray, " N"], held: set[int]
) -> Int64[np.ndarray, " R"]:
    """The rows, those first whose item is not in `held` and at no row before."""
    again = np.zeros(len(rows), dtype=bool)
    for place, item in enumerate(items[rows].tolist()):
        again[place] = item in held
        held.add(item)
    return rows[np.argsort(again, kind="stable")]
