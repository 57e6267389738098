"""Settings of projector and predictor heads, and the published ones by name. Light: no model library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from pydantic import Field, model_validator

from retrieval_cl.settings import Settings

LastNorm = Literal["none", "plain", "scale", "full"]
HeadPreset = Literal[
    "linear",
    "simclr_v1",
    "simclr_v2",
    "dkobak",
    "lightly_simclr",
    "moco_v2",
    "moco_v3",
    "moco_v3_vit",
    "moco_v3_predictor",
    "moco_v3_vit_predictor",
    "byol",
    "lightly_byol",
    "solo_simclr",
    "solo_byol",
]


@final
@dataclass(frozen=True)
class HeadLayout:
    """What a head is made of: linear layers with a ReLU after each but the last.

    A linear layer that batch norm follows has no bias: the norm would take it off again.

    Attributes:
        layers: linear layers.
        hidden: width of the layers but the last; None: that of the features (2048 for a ResNet-50).
        dim: width of the last, the numbers in a vector that the loss sees.
        hidden_norm: whether batch norm follows each linear layer but the last.
        last_norm: batch norm after the last: none, plain (no weights), scale (no offset), or full.
        last_bias: whether the last layer has a bias where no batch norm follows it.
        source: where it is published.
    """

    layers: int
    hidden: int | None
    dim: int
    hidden_norm: bool
    last_norm: LastNorm
    last_bias: bool
    source: str


class HeadConfig(Settings):
    """One head: a published one by name, and what departs from it."""

    preset: HeadPreset = Field("simclr_v1", description="the published head it starts from")
    layers: int | None = Field(None, ge=1, le=8, description="linear layers; null: the preset's")
    hidden: int | None = Field(
        None,
        ge=2,
        le=65_536,
        description="width of the layers but the last; null: the preset's (for simclr_v1, simclr_v2, "
        "lightly_simclr, moco_v2 that of the features)",
    )
    dim: int | None = Field(
        None,
        ge=2,
        le=65_536,
        description="numbers in a vector that the loss sees; null: the preset's; a predictor's is always its "
        "projector's",
    )
    hidden_norm: bool | None = Field(
        None, description="batch norm after each layer but the last; null: the preset's"
    )
    last_norm: LastNorm | None = Field(
        None,
        description="batch norm after the last layer: none, plain (no weights), scale (no offset), full; "
        "null: the preset's",
    )

    @property
    def layout(self) -> HeadLayout:
        """The preset with what departs from it."""
        preset = PRESETS[self.preset]
        return HeadLayout(
            layers=preset.layers if self.layers is None else self.layers,
            hidden=preset.hidden if self.hidden is None else self.hidden,
            dim=preset.dim if self.dim is None else self.dim,
            hidden_norm=preset.hidden_norm if self.hidden_norm is None else self.hidden_norm,
            last_norm=preset.last_norm if self.last_norm is None else self.last_norm,
            last_bias=preset.last_bias,
            source=preset.source,
        )

    @model_validator(mode="after")
    def _check_one_layer(self) -> HeadConfig:
        if self.layout.layers == 1:
            for name in ("hidden", "hidden_norm"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} = {getattr(self, name)!r} has no effect on a head of one layer; remove it, "
                        "or set layers to 2 or more"
                    )
        return self


_GOOGLE = "google-research/simclr, model_util.py, projection_head"
_LIGHTLY = "lightly-ai/lightly, models/modules/heads.py and benchmarks/cifar10"
_MOCO_V3 = "facebookresearch/moco-v3, moco/builder.py"
_SOLO = "vturrisi/solo-learn, solo/methods and scripts/pretrain/cifar"


def _layout(
    layers: int,
    hidden: int | None,
    *,
    dim: int,
    source: str,
    hidden_norm: bool = True,
    last_norm: LastNorm = "none",
    last_bias: bool = False,
) -> HeadLayout:
    return HeadLayout(layers, hidden, dim, hidden_norm, last_norm, last_bias, source)


PRESETS: dict[HeadPreset, HeadLayout] = {
    "linear": _layout(
        1,
        None,
        dim=128,
        hidden_norm=False,
        last_bias=True,
        source="MoCo v1, arXiv 1911.05722, 3.3; moco Colab",
    ),
    "simclr_v1": _layout(2, None, dim=128, last_norm="scale", source=f"arXiv 2002.05709, 2.1; {_GOOGLE}"),
    "simclr_v2": _layout(3, None, dim=128, last_norm="scale", source=f"arXiv 2006.10029, 2; {_GOOGLE}"),
    "dkobak": _layout(
        2, 1024, dim=128, hidden_norm=False, last_bias=True, source="dkobak/simclr-cifar10, simclr-cifar10.py"
    ),
    "lightly_simclr": _layout(2, None, dim=128, last_norm="full", source=_LIGHTLY),
    "moco_v2": _layout(
        2,
        None,
        dim=128,
        hidden_norm=False,
        last_bias=True,
        source="arXiv 2003.04297, 2; facebookresearch/moco",
    ),
    "moco_v3": _layout(2, 4096, dim=256, last_norm="plain", source=f"arXiv 2104.02057; {_MOCO_V3}, ResNet"),
    "moco_v3_vit": _layout(3, 4096, dim=256, last_norm="plain", source=f"arXiv 2104.02057; {_MOCO_V3}, ViT"),
    "moco_v3_predictor": _layout(2, 4096, dim=256, source=f"{_MOCO_V3}, ResNet; also solo-learn's"),
    "moco_v3_vit_predictor": _layout(2, 4096, dim=256, last_norm="plain", source=f"{_MOCO_V3}, ViT"),
    "byol": _layout(
        2, 4096, dim=256, source="arXiv 2006.07733, app. C.1; deepmind-research, byol/utils/networks.py"
    ),
    "lightly_byol": _layout(2, 1024, dim=256, last_bias=True, source=_LIGHTLY),
    "solo_simclr": _layout(
        2, 2048, dim=256, hidden_norm=False, last_bias=True, source=f"{_SOLO}; also its MoCo v2+"
    ),
    "solo_byol": _layout(2, 4096, dim=256, last_bias=True, source=_SOLO),
}
