"""Slow references: the published augmentations as they are defined, one image at a time."""

import math
import random

import numpy as np
import torch
from torch.nn.functional import conv2d, interpolate, pad

LUMA = (0.299, 0.587, 0.114)


def draw_box(height, width, *, scale, ratio, chance):
    """torchvision's RandomResizedCrop.get_params: top, left, height, width."""
    for _ in range(10):
        area = height * width * chance.uniform(*scale)
        aspect = math.exp(chance.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return chance.randint(0, height - h), chance.randint(0, width - w), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def crop(image, box, size, *, flipped=False, antialias=True):
    """Cuts a box out, resizes it as torchvision does, mirrors it."""
    top, left, height, width = box
    part = image[None, :, top : top + height, left : left + width]
    found = interpolate(part, (size, size), mode="bilinear", antialias=antialias, align_corners=False)[0]
    return found.flip(2) if flipped else found


def grey(image):
    return sum(weight * channel for weight, channel in zip(LUMA, image, strict=True)).expand(3, -1, -1)


def brightness(image, factor):
    return factor * image


def contrast(image, factor):
    return factor * image + (1 - factor) * grey(image).mean()


def saturation(image, factor):
    return factor * image + (1 - factor) * grey(image)


def turned_hue(image, turn):
    """Rotation about the axis of equal channels: our linear stand-in for HSV's hue."""
    angle = 2 * math.pi * turn
    axis = torch.full((3, 1), 3**-0.5, dtype=torch.float64)
    flat = image.reshape(3, -1)
    along = axis @ (axis.T @ flat)
    across = torch.linalg.cross(axis.expand_as(flat), flat, dim=0)
    return (along + math.cos(angle) * (flat - along) + math.sin(angle) * across).view_as(image)


def hsv_hue(image, turn):
    """torchvision's adjust_hue: to HSV, turn, and back."""
    red, green, blue = image
    high, low = image.amax(0), image.amin(0)
    spread = high - low
    safe = torch.where(spread == 0, 1.0, spread)
    sector = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = torch.where(spread == 0, 0.0, sector / 6 + turn) % 1 * 6
    # https://en.wikipedia.org/wiki/HSL_and_HSV, "HSV to RGB alternative".
    shifted = (torch.tensor([5.0, 3.0, 1.0])[:, None, None] + hue) % 6
    return high - spread * torch.minimum(shifted, 4 - shifted).clamp(0, 1)


def jitter(image, factors, order, *, hue=hsv_hue, limit=lambda x: x.clamp(0, 1)):
    """torchvision's ColorJitter with given factors (brightness, contrast, saturation, hue)."""
    operations = (brightness, contrast, saturation, hue)
    for number in order:
        image = limit(operations[number](image, factors[number]))
    return image


def draw_jitter(strengths, chance):
    *factors, hue = strengths
    drawn = [chance.uniform(max(0, 1 - each), 1 + each) for each in factors]
    return [*drawn, chance.uniform(-hue, hue)], chance.sample(range(4), 4)


def blur(image, sigma, radius):
    """torchvision's GaussianBlur: one kernel, mirrored borders."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    line = torch.exp(-(offsets**2) / (2 * sigma**2))
    line = line / line.sum()
    kernel = torch.outer(line, line).expand(3, 1, -1, -1)
    return conv2d(pad(image[None], [radius] * 4, mode="reflect"), kernel, groups=3)[0]


def solarize(image, threshold):
    return torch.where(image >= threshold, 1 - image, image)


def photographs(count, side, *, seed=0):
    """Smooth images in bytes, about as saturated as photographs: noise of light and colour, a tint."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 3, side, side)
    for coarse in (2, 4, 8):
        light, colour = (torch.rand(count, n, coarse, coarse, generator=generator) for n in (1, 3))
        images += interpolate(0.25 * light + 0.08 * colour, (side, side), mode="bilinear")
    tint = torch.rand(count, 3, 1, 1, generator=generator) - 0.5
    return ((images + 0.3 * tint).clamp(0, 1) * 255).round().to(torch.uint8)


def chance(seed=0):
    return random.Random(seed)


def bilinear_or_black(image, x, y):
    """The value at a place in pixels (centres at .5), neighbours outside count as black; slow."""
    channels, height, width = image.shape
    found = np.zeros(channels)
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(y - 0.5 - row)) * (1 - abs(x - 0.5 - column))
                found += weight * image[:, row, column]
    return found
