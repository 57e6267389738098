"""The ResNet for 32x32 images. Saved folders carry this file: it needs transformers alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention


class CifarResNetConfig(ResNetConfig):  # type: ignore[misc]
    """As a ResNet's; the name tells that the stem is another."""

    model_type = "retrieval_cl_cifar_resnet"

    def __init__(self, **kwargs: Any) -> None:
        """See `ResNetConfig`."""
        super().__init__(**kwargs)


class CifarResNetModel(ResNetModel):  # type: ignore[misc]
    """transformers' ResNet with a 3x3 stem of stride 1 and no max-pool (SimCLR, arXiv 2002.05709, app. B.9).

    transformers' configuration cannot say so: its stem is 7x7 with stride 2, then a max-pool.
    """

    config_class = CifarResNetConfig

    def __init__(self, config: CifarResNetConfig) -> None:
        """`config`: see there."""
        super().__init__(config)
        self.embedder.embedder.convolution = nn.Conv2d(
            config.num_channels, config.embedding_size, kernel_size=3, padding=1, bias=False
        )
        self.embedder.pooler = nn.Identity()
        self.post_init()

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPoolingAndNoAttention:
        """Maps [B, 3, H, W] normalised pixels to maps [B, C, H/8, W/8] and their mean [B, C, 1, 1]."""
        # A quarter less time than with channels first, on the CPU as on a GPU.
        return super().forward(pixel_values.contiguous(memory_format=torch.channels_last), **kwargs)


CifarResNetConfig.register_for_auto_class("AutoConfig")
CifarResNetModel.register_for_auto_class("AutoModel")
