"""From the values of an image-text run to what its report shows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from retrieval_cl.config import ImageTextRunConfig, mines
from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.image_text import ImageTextEncoder
from retrieval_cl.indexing import exact
from retrieval_cl.reporting.contact_sheet import Tile
from retrieval_cl.reporting.image_text_report import ImageTextReport
from retrieval_cl.runs.image_neighbours import picture_of
from retrieval_cl.runs.image_text_board import TITLES, ImageTextBoard
from retrieval_cl.runs.image_text_scores import ImageTextTasks
from retrieval_cl.runs.image_text_training import TrainedImageText
from retrieval_cl.runs.reports import provenance
from retrieval_cl.runs.stopwatch import peak_rss_gib
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.sources.image_text.relations import Matches

NUM_SHOWN, NUM_HITS = 8, 8
_SEED = 11


def image_text_report(
    run: TrainedImageText,
    config: ImageTextRunConfig,
    data: ImageTextData,
    matches: Matches,
    *,
    tasks: ImageTextTasks | None,
    board: ImageTextBoard | None,
    seconds: Mapping[str, float],
    total: float,
    command: str,
) -> ImageTextReport:
    """The page of one run."""
    folder, encoder = config.folder, config.encoder
    kind = (
        f"{encoder.image.kind} image encoder and {encoder.text.kind} text encoder"
        if encoder.kind == "pair"
        else f"model that began as {encoder.path}"
    )
    captions_found, images_found = ([], []) if tasks is None else found_rows(tasks, run.encoder, data)
    return ImageTextReport(
        name=config.name,
        model=f"a {kind}, vectors of {run.encoder.dim} numbers, by {config.method.name}",
        dim=run.encoder.dim,
        arm=run.arm(config.name),
        provenance=provenance(command, settings=settings_facts(config)),
        metric=config.evaluation.metric,
        results={} if board is None else {TITLES[part]: rows for part, rows in board.results.items()},
        headline=(TITLES["text_to_image"], "success@10"),
        comparisons=[] if board is None else board.comparisons(),
        protocol={} if board is None else board.protocol,
        data=data_facts(data, matches),
        captions_found=captions_found,
        images_found=images_found,
        mining=run.rounds,
        seconds=seconds,
        total_seconds=total,
        peak_rss_gib=peak_rss_gib(),
        next_commands=[
            ("Index images with this model", f"retrieval-cl index {folder}"),
            ("Search by words", f'retrieval-cl search {folder / "index"} "your words" --sheet hits.html'),
            ("Index your own photos", f"retrieval-cl index {folder} --data photos/ --output photos.index"),
            ("Compare with another run", f"retrieval-cl eval {folder} --against OTHER_RUN"),
        ],
    )


def settings_facts(config: ImageTextRunConfig) -> dict[str, str]:
    """Settings worth showing."""
    training, mining = config.training, config.mining
    augmentation = config.augmentation
    shown = {
        "method": config.method.name,
        "objective": config.method.objective,
        "temperature at the start": _start_of_scale(config),
        "augmentation": "none" if augmentation is None else augmentation.preset,
        "locked tower": config.encoder.locked or "none",
        "learning rate": f"{training.lr:g}, {training.schedule}, {training.optimizer}",
        "batch": f"{training.batch_size} pairs",
        "edited captions": str(training.edits or "none"),
        "seed": str(training.seed),
    }
    if mines(training):
        shown["mined negatives"] = (
            f"{training.num_negatives} {training.mined} an image, ranks {mining.rank_min} to "
            f"{mining.last_rank}, {mining.sampling}"
        )
    return shown


def _start_of_scale(config: ImageTextRunConfig) -> str:
    """The temperature before the first step; a pretrained model brings its own, unless one was set."""
    given = f"{config.method.temperature:g}"
    if config.encoder.kind == "pair" or "temperature" in config.method.model_fields_set:
        return given
    return f"what its model learned, else {given}"


def data_facts(data: ImageTextData, matches: Matches) -> dict[str, str]:
    """Sizes, splits, and what is not as it should be."""
    height, width = data.images.size
    distinct = len(np.unique(matches.caption_items))
    broken = data.made_by.get("broken")
    facts = {
        "images": f"{len(data.images):,} of {height} x {width} pixels",
        "captions": f"{len(data.captions):,}, {distinct:,} of them distinct",
        "splits": ", ".join(f"{len(rows):,} {name}" for name, rows in data.splits.items()),
        "classes": f"{len(data.classes)}, unknown to training" if data.classes else "",
        "broken": f"{len(broken):,}" if broken else "",
    }
    return {name: fact for name, fact in facts.items() if fact}


def found_rows(
    tasks: ImageTextTasks, encoder: ImageTextEncoder, data: ImageTextData
) -> tuple[list[list[Tile]], list[list[Tile]]]:
    """A seeded sample of captions, each before the images found for it; and of images before captions."""
    task = tasks.cross_modal
    images = encoder.encode_images(data.images, rows=task.images)
    captions = encoder.encode_texts([data.captions[row] for row in task.captions.tolist()])

    def image_tile(place: int, caption: str = "", is_right: bool | None = None) -> Tile:
        return Tile(picture_of(data.images, int(task.images[place])), caption, is_right)

    def caption_tile(place: int, caption: str = "", is_right: bool | None = None) -> Tile:
        return Tile(None, f"{caption} {data.captions[task.captions[place]]}".strip(), is_right)

    by_caption = [
        [caption_tile(query), *(image_tile(place, f"{score:.2f}", right) for place, score, right in hits)]
        for query, hits in _sample_hits(captions, images, task.images_of)
    ]
    by_image = [
        [image_tile(query), *(caption_tile(place, f"{score:.2f}", right) for place, score, right in hits)]
        for query, hits in _sample_hits(images, captions, task.captions_of)
    ]
    return by_caption, by_image


def _sample_hits(
    queries: Float32[np.ndarray, "Q D"], candidates: Float32[np.ndarray, "M D"], relevant: Ragged
) -> list[tuple[int, list[tuple[int, float, bool]]]]:
    """Place of each query of a sample, and its hits: place, score, and whether it is known to match."""
    chosen = np.sort(np.random.default_rng(_SEED).permutation(len(queries))[:NUM_SHOWN])
    hits = exact.search(queries[chosen], candidates, k=min(NUM_HITS, len(candidates)))
    found = []
    for query, rows, scores in zip(chosen.tolist(), hits.rows, hits.scores.tolist(), strict=True):
        right = np.isin(rows, relevant[query])
        found.append((query, list(zip(rows.tolist(), scores, right.tolist(), strict=True))))
    return found
