"""The published recipes, two views each; the numbers are those of the named code or paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from retrieval_cl.augmentation.recipe import Recipe

_WHOLE, _MOST = (0.08, 1.0), (0.2, 1.0)
_PILLOW = 1.0  # Pillow's blur has no kernel size: it reaches as far as sigma does.


def _same(recipe: Recipe) -> tuple[Recipe, Recipe]:
    return recipe, recipe


def _asymmetric(recipe: Recipe, *, blur: tuple[float, float]) -> tuple[Recipe, Recipe]:
    """BYOL's two views: they differ in blur, and the second alone is solarized."""
    return replace(recipe, blur=blur[0]), replace(recipe, blur=blur[1], solarize=0.2)


def _jittered(
    scale: tuple[float, float],
    strengths: tuple[float, float, float, float],
    *,
    jitter: float = 0.8,
    grey: float = 0.2,
    grey_first: bool = False,
    blur: float = 0.0,
    blur_kernel: float = 0.1,
) -> Recipe:
    """What all recipes for photographs have in common: crop, flip at 1/2, jitter, grey."""
    brightness, contrast, saturation, hue = strengths
    return Recipe(
        crop_scale=scale,
        flip=0.5,
        jitter=jitter,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        grey=grey,
        grey_first=grey_first,
        blur=blur,
        blur_kernel=blur_kernel,
    )


_STRONG, _EVEN, _BYOL = (0.8, 0.8, 0.8, 0.2), (0.4, 0.4, 0.4, 0.1), (0.4, 0.4, 0.2, 0.1)

PRESETS: Mapping[str, tuple[Recipe, Recipe]] = MappingProxyType(
    {
        # facebookresearch/moco main_moco.py without --aug-plus; arXiv 1911.05722
        "moco_v1": _same(_jittered(_MOST, (0.4, 0.4, 0.4, 0.4), jitter=1.0, grey_first=True)),
        # facebookresearch/moco main_moco.py --aug-plus; arXiv 2003.04297
        "moco_v2": _same(_jittered(_MOST, _EVEN, blur=0.5, blur_kernel=_PILLOW)),
        # google-research/simclr data_util.py, strength 1; arXiv 2002.05709 appendix A
        "simclr_imagenet": _same(_jittered(_WHOLE, _STRONG, blur=0.5)),
        # google-research/simclr, strength 0.5, no blur; arXiv 2002.05709 appendix B.9
        "simclr_cifar": _same(_jittered(_WHOLE, _EVEN)),
        # deepmind-research/byol utils/augmentations.py; arXiv 2006.07733 appendix B. There brightness is a
        # shift, contrast keeps each channel's mean; here both are torchvision's, as in moco-v3.
        "byol": _asymmetric(_jittered(_WHOLE, _BYOL), blur=(1.0, 0.1)),
        # facebookresearch/moco-v3 main_moco.py with the ResNet's --crop-min .2 (ViT: crop_scale [.08, 1]);
        # arXiv 2104.02057
        "moco_v3": _asymmetric(_jittered(_MOST, _BYOL, blur_kernel=_PILLOW), blur=(1.0, 0.1)),
        # dkobak/simclr-cifar10
        "dkobak_cifar": _same(_jittered(_MOST, _EVEN, grey=0.1)),
        # vturrisi/solo-learn scripts/pretrain/cifar/augmentations: symmetric.yaml of SimCLR
        "solo_cifar_simclr": _same(_jittered(_WHOLE, _STRONG, blur=0.5, blur_kernel=_PILLOW)),
        # the same folder's asymmetric.yaml (BYOL, MoCo v3)
        "solo_cifar_byol": _asymmetric(_jittered(_WHOLE, _BYOL), blur=(0.0, 0.0)),
        # the same folder's symmetric_weak.yaml (MoCo v2+)
        "solo_cifar_mocov2": _same(_jittered(_WHOLE, _EVEN, blur=0.5, blur_kernel=_PILLOW)),
        # ours, for small grey digits: never mirrored, which would make other signs of them
        "digits": _same(Recipe(crop_scale=(0.6, 1.0), rotation=20.0, shift=0.1)),
    }
)
