"""Augmentation beside kornia's with the same preset, on the processor: images/s, two views each.

    python benchmarks/augment.py [--threads 2] [--repeats 9] [--json FILE]

Batches of 256 images, bytes in memory as they are decoded (channels last), become two normalised float
views. kornia runs the same operations with the same numbers, one module each, after a division by 255; its
crop is the default one, which does not smooth what it shrinks (ours does), and its jitter draws one order a
batch (ours one an image). Both must give colours of like mean and spread. The rows in seconds say what
drawing the parameters of one view costs beside all of that view.
"""

from __future__ import annotations

import warnings
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib.metadata import version

import torch
from side_by_side import Goal, Row, Step, Timings, machine, parse, report, time_in_turn
from torch import Tensor, nn

from retrieval_cl.augmentation.augment import RandomView, TwoViews, build_views
from retrieval_cl.augmentation.blur import blur_radius
from retrieval_cl.augmentation.config import AugmentationConfig
from retrieval_cl.augmentation.recipe import Recipe

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import kornia.augmentation as peer

# Preset and side of the images.
SETTINGS = (("simclr_cifar", 32), ("simclr_imagenet", 96), ("byol", 96))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GOAL = Goal(4.0, "at least")


def main(arguments: Sequence[str] | None = None) -> None:
    """Times and compares, prints one table."""
    given = parse(ArgumentParser(description=__doc__.splitlines()[0]), arguments)
    torch.manual_seed(0)
    count = 64 if given.quick else 256
    rows = [row for preset, side in SETTINGS for row in compare(preset, side, count, given.repeats)]
    print(f"{machine()}; kornia {version('kornia')}; batches of {count}; two views each; ratio = ours / peer")
    report(rows, given)


def compare(preset: str, side: int, count: int, repeats: int) -> list[Row]:
    """Rates of both, and what the drawing costs us."""
    config = AugmentationConfig(preset=preset)
    images = draw_images(count, side)
    views = build_views(config, size=side, mean=MEAN, std=STD)
    timings = time_in_turn(
        {
            "ours": ours(views, images),
            "kornia": theirs(config.recipes(), images),
            "draw": drawing(views.first, images),
            "one": one_view(views.first, images),
        },
        repeats=repeats,
    )
    refuse_other_views(timings, preset)
    name = f"{preset}, {side} x {side}"
    rate = timings.compare_rates(name, "ours", "kornia", amount=count, unit="images/s", goal=GOAL)
    return [rate, timings.compare(f"{name}: parameters drawn, of one view", "draw", "one")]


def draw_images(count: int, side: int) -> Tensor:
    """Smooth coloured images as a decoder leaves them: bytes, channels last in memory."""
    coarse = nn.functional.interpolate(torch.rand(count, 3, 6, 6), (side, side), mode="bicubic").clamp(0, 1)
    return (coarse * 255).byte().to(memory_format=torch.channels_last)


def ours(views: TwoViews, images: Tensor) -> Step:
    """Two views of a batch."""
    generator = torch.Generator().manual_seed(0)
    return lambda: views(images, generator=generator)


def one_view(view: RandomView, images: Tensor) -> Step:
    """The first view alone."""
    generator = torch.Generator().manual_seed(0)
    return lambda: view(images, generator=generator)


def drawing(view: RandomView, images: Tensor) -> Step:
    """The parameters of the first view alone."""
    generator, (height, width) = torch.Generator().manual_seed(0), images.shape[2:]
    return lambda: view.draw(len(images), source=(height, width), generator=generator)


def theirs(recipes: Sequence[Recipe], images: Tensor) -> Step:
    """Two views by kornia's modules."""
    first, second = (modules(recipe, images.shape[2]) for recipe in recipes)

    def step() -> tuple[Tensor, Tensor]:
        pixels = images.contiguous().float() / 255
        return first(pixels), second(pixels)

    return step


def modules(recipe: Recipe, size: int) -> nn.Sequential:
    """A recipe in kornia's words; what has probability 0 is left out."""
    kernel = (2 * blur_radius(recipe, size) + 1,) * 2
    strengths = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    normalise = peer.Normalize(torch.tensor(MEAN), torch.tensor(STD))
    found = {
        peer.RandomResizedCrop((size, size), scale=recipe.crop_scale, ratio=recipe.crop_ratio): 1.0,
        peer.RandomHorizontalFlip(p=recipe.flip): recipe.flip,
        peer.ColorJitter(*strengths, p=recipe.jitter): recipe.jitter,
        peer.RandomGrayscale(p=recipe.grey): recipe.grey,
        peer.RandomGaussianBlur(kernel, recipe.blur_sigma, p=recipe.blur): recipe.blur,
        peer.RandomSolarize(0.0, 0.0, p=recipe.solarize): recipe.solarize,
        normalise: 1.0,
    }
    return nn.Sequential(*(module for module, probability in found.items() if probability))


def refuse_other_views(timings: Timings, preset: str) -> None:
    """Raises where the colours of both differ in mean or spread: then they did not do the same."""
    for a, b in zip(timings.values["ours"], timings.values["kornia"], strict=True):
        if (a.mean() - b.mean()).abs() > 0.2 or (a.std() / b.std()).log().abs() > 0.2:
            moments = f"mean {a.mean():.3f}, {b.mean():.3f}; std {a.std():.3f}, {b.std():.3f}"
            raise RuntimeError(f"{preset}: ours and kornia's views differ: {moments}")


if __name__ == "__main__":
    main()
