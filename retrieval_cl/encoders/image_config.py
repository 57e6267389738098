"""Settings of the image encoder. Light: imported by the command line before any model library."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from retrieval_cl.settings import Settings

# Of the manifest of a saved encoder.
IMAGE_FOLDER_KIND = "image_encoder"
ImageEncoderKind = Literal["convnet", "resnet", "vit", "pretrained"]
TokenPooling = Literal["mean", "cls"]
Share = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(gt=0, le=1)]
Depth = Annotated[int, Field(ge=1, le=100)]


class ImageEncoderConfig(Settings):
    """What embeds the images. A setting that has no effect for the chosen kind is an error."""

    kind: ImageEncoderKind = Field(
        "convnet",
        description="convnet: a small one for small images on a CPU; resnet, vit: transformers' with random "
        "weights; pretrained: trained weights",
    )
    path: str | None = Field(
        None, description="folder or Hugging Face id of the model to start from (kind pretrained)"
    )
    size: int | None = Field(
        None,
        ge=4,
        le=1024,
        description="side of the square images it takes, in pixels; null: 32 for convnet and the cifar stem, "
        "224 for the other stem and vit, a pretrained model's own",
    )
    mean: tuple[Share, Share, Share] | None = Field(
        None,
        description="taken off red, green, blue of pixels in 0..1; null: 0.5, or a pretrained model's own",
    )
    std: tuple[Spread, Spread, Spread] | None = Field(
        None, description="red, green, blue are divided by it; null: 0.5, or a pretrained model's own"
    )
    depths: tuple[Depth, ...] | None = Field(
        None,
        min_length=1,
        max_length=6,
        description="layers (convnet) or blocks (resnet) of each stage; null: 2, 2, 2, for resnet 2, 2, 2, 2",
    )
    width: int | None = Field(
        None,
        ge=4,
        le=1024,
        description="channels of the first stage, doubled by each next (times 4 with bottleneck blocks); "
        "null: 32 for convnet, 64 for resnet; resnet takes 8 or more",
    )
    block: Literal["basic", "bottleneck"] = Field(
        "basic", description="basic: ResNet-18 and -34; bottleneck: ResNet-50 and up (kind resnet)"
    )
    stem: Literal["imagenet", "cifar"] = Field(
        "imagenet",
        description="imagenet: 7x7, stride 2, max-pool; cifar: 3x3, stride 1, no max-pool (kind resnet)",
    )
    patch_size: int = Field(16, ge=1, le=64, description="side of a patch in pixels (kind vit)")
    hidden_size: int = Field(384, ge=4, le=4096, description="numbers in a token's vector (kind vit)")
    layers: int = Field(12, ge=1, le=100, description="transformer layers (kind vit)")
    heads: int = Field(6, ge=1, le=64, description="attention heads of each layer (kind vit)")
    frozen_patches: bool = Field(
        False,
        description="the patch projection keeps its random weights: steadier training (MoCo v3; kind vit)",
    )
    pooling: TokenPooling | None = Field(
        None,
        description="from token vectors to one vector; mean: of the patches; null: mean, or a saved "
        "encoder's own (kinds vit, pretrained)",
    )

    @property
    def side(self) -> int | None:
        """Side of the images in pixels; None: that of the pretrained model."""
        if self.size is not None or self.kind == "pretrained":
            return self.size
        return 32 if self.kind == "convnet" or (self.kind == "resnet" and self.stem == "cifar") else 224

    @model_validator(mode="after")
    def _check_kind(self) -> ImageEncoderConfig:
        if self.kind == "pretrained" and not self.path:
            raise ValueError("kind 'pretrained' needs path: a folder or a Hugging Face id")
        for name, kinds in _EFFECTIVE.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                # Compared with the default, not with what was given: a dumped config must load again.
                raise ValueError(
                    f"{name} = {getattr(self, name)!r} has no effect with kind '{self.kind}'; "
                    f"remove it or set kind to {' or '.join(kinds)}"
                )
        return self

    @model_validator(mode="after")
    def _check_sizes(self) -> ImageEncoderConfig:
        if self.kind == "vit":
            if self.hidden_size % self.heads:
                raise ValueError(f"hidden_size {self.hidden_size} is no multiple of heads {self.heads}")
            if self.side is not None and self.side % self.patch_size:
                raise ValueError(f"size {self.side} is no multiple of patch_size {self.patch_size}")
        if self.kind == "convnet" and self.side is not None and self.depths is not None:
            least = 2 ** (len(self.depths) - 1)
            if self.side < least:
                raise ValueError(
                    f"size {self.side} is too small for {len(self.depths)} stages, each of which halves it; "
                    f"give at least {least}, or fewer depths"
                )
        if self.kind == "resnet" and self.width is not None and self.width < _LEAST_RESNET_WIDTH:
            least = _LEAST_RESNET_WIDTH
            raise ValueError(f"width {self.width} is too small for resnet; give at least {least}")
        return self


# With fewer channels, oneDNN 3.12 (torch 2.13) writes past its buffer in the backward pass of the shortcut, a
# strided 1x1 convolution in channels_last, on processors with AVX2 alone: the process dies.
_LEAST_RESNET_WIDTH = 8


_EFFECTIVE: dict[str, tuple[ImageEncoderKind, ...]] = {
    "path": ("pretrained",),
    "depths": ("convnet", "resnet"),
    "width": ("convnet", "resnet"),
    "pooling": ("vit", "pretrained"),
    **dict.fromkeys(("block", "stem"), ("resnet",)),
    **dict.fromkeys(("patch_size", "hidden_size", "layers", "heads", "frozen_patches"), ("vit",)),
}
