"""From the values of an image run to what its report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retrieval_cl.config import ImageRunConfig, mines
from retrieval_cl.reporting.contact_sheet import Tile
from retrieval_cl.reporting.facts import Comparison, Interval
from retrieval_cl.reporting.image_report import ImageReport
from retrieval_cl.runs.image_results import KNN, LINEAR, RANDOM_ENCODER, RAW_PIXELS, ImageScores
from retrieval_cl.runs.reports import provenance
from retrieval_cl.runs.self_supervised import TrainedImages
from retrieval_cl.runs.stopwatch import peak_rss_gib
from retrieval_cl.sources.images.copies import Copies
from retrieval_cl.sources.images.data import ImageData

_TRAINED = "trained encoder"
# Name of a number, less its ending -> (system, metric) of the page.
_NUMBERS = {
    KNN: (_TRAINED, "kNN accuracy"),
    LINEAR: (_TRAINED, "linear accuracy"),
    RAW_PIXELS: ("raw pixels", "kNN accuracy"),
    RANDOM_ENCODER: ("before training", "kNN accuracy"),
}
_OF_TWINS = {"": "", "_warped": "warped "}


def image_report(
    run: TrainedImages,
    config: ImageRunConfig,
    data: ImageData,
    *,
    copies: Copies,
    scores: ImageScores,
    neighbours: Sequence[Sequence[Tile]],
    seconds: Mapping[str, float],
    total: float,
    command: str,
) -> ImageReport:
    """The page of one run."""
    folder, shown = config.folder, scores.endings[-1] if scores.endings else ""
    # As the command line takes it: digits, warped or not, have no path.
    images = config.source.path or config.source.kind
    kind = f"{_OF_TWINS[shown]}images of split {config.evaluation.split}"
    return ImageReport(
        name=config.name,
        model=f"a {config.encoder.kind} with vectors of {run.encoder.dim} numbers, by {config.method.name}",
        dim=config.method.projector.layout.dim,
        arm=run.arm(_TRAINED),
        provenance=provenance(command, settings=settings_facts(config)),
        headline=_metric("kNN accuracy", shown),
        results=_results(scores),
        comparisons=_comparisons(scores),
        protocol=scores.protocol,
        images=image_facts(data, copies),
        neighbours=neighbours,
        neighbours_of=f"A seeded sample of the {kind}, each before its nearest images of split train, with "
        "their cosine" + ("; framed by whether the class is the same." if scores.endings else "."),
        mining=run.rounds,
        seconds=seconds,
        total_seconds=total,
        peak_rss_gib=peak_rss_gib(),
        next_commands=[
            ("Index images with this model", f"retrieval-cl index {folder}"),
            ("Search by an image", f"retrieval-cl search {folder / 'index'} IMAGE --sheet hits.html"),
            ("Compare with another run", f"retrieval-cl eval {folder} --against OTHER_RUN"),
            ("Look for copies in the images", f"retrieval-cl copies {images}"),
        ],
    )


def settings_facts(config: ImageRunConfig) -> dict[str, str]:
    """Settings worth showing."""
    training, mining = config.training, config.mining
    shown = {
        "method": config.method.name,
        "temperature": f"{config.method.temperature:g}",
        "augmentation": config.augmentation.preset,
        "learning rate": f"{training.lr:g}, {training.schedule}, {training.optimizer}",
        "batch": f"{training.batch_size} images",
        "seed": str(training.seed),
    }
    if config.method.name == "byol":
        # It compares with no others.
        del shown["temperature"]
    if mines(training):
        drawn = f"{mining.num_negatives} an image ({training.num_negatives} a step)"
        shown["mined negatives"] = (
            f"{drawn}, ranks {mining.rank_min} to {mining.last_rank}, {mining.sampling}"
        )
    return shown


def image_facts(data: ImageData, copies: Copies) -> dict[str, str]:
    """Sizes, splits, and what is not as it should be."""
    height, width = data.images.size
    same = {
        name.removesuffix(": same pixels"): number
        for name, number in copies.counts(data.splits).items()
        if name.endswith("same pixels") and number
    }
    facts = {
        "images": f"{len(data.images):,} of {height} x {width} pixels",
        "splits": ", ".join(f"{len(rows):,} {name}" for name, rows in data.splits.items()),
        "classes": f"{len(data.classes)}, unknown to training" if data.classes else "",
        "the same, pixel for pixel": ", ".join(f"{number:,} in {name}" for name, number in same.items())
        or "none",
        "left out of train": _left_out(data.made_by.get("leaked_train_images", 0)),
        "broken": f"{len(broken):,}" if (broken := data.made_by.get("broken")) else "",
    }
    return {name: fact for name, fact in facts.items() if fact}


def _left_out(number: int) -> str:
    return f"{number:,}: a held-out image has the same pixels" if number else ""


def _results(scores: ImageScores) -> dict[str, dict[str, Interval]]:
    """System -> metric -> share; the set the page begins with comes first."""
    found: dict[str, dict[str, Interval]] = {}
    for ending in reversed(scores.endings):
        for number, (system, metric) in _NUMBERS.items():
            interval = scores.intervals.get(number + ending)
            if interval is not None:
                found.setdefault(system, {})[_metric(metric, ending)] = interval
    return found


def _comparisons(scores: ImageScores) -> list[Comparison]:
    named = {
        number + ending: (system, _metric(metric, ending))
        for number, (system, metric) in _NUMBERS.items()
        for ending in scores.endings
    }
    return [
        Comparison(*(named[name][0], named[than][0]), named[name][1], one.interval, one.p)
        for ending in reversed(scores.endings)
        for (name, than), one in scores.comparisons.items()
        if name == KNN + ending
    ]


def _metric(name: str, ending: str) -> str:
    return f"{_OF_TWINS[ending]}{name}"
