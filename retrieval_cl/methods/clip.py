"""CLIP: images against the texts of all ranks, and back (Radford et al. 2021, figure 3).

With the sigmoid objective it is SigLIP (Zhai et al. 2023, eq. 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, cast, final, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from retrieval_cl.core.contrast import Bank, Contrast
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import Objective
from retrieval_cl.core.ranks import rank
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.temperature import Bias, Temperature
from retrieval_cl.core.views import Batch, Pixels
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.method import Embeddings, Method
from retrieval_cl.methods.objectives import build_guard, build_two_way
from retrieval_cl.methods.parts import private_columns, view_part

MAX_SCALE = 100.0


@runtime_checkable
class Towers(Protocol):
    """What embeds images and texts: `encoders.image_text.ImageTextEncoder`, or what else gives unit rows.

    Attributes:
        start_temperature: what a pretrained model learned; None: nothing.
        start_bias: what a model pretrained with the sigmoid objective learned; None: nothing.
    """

    start_temperature: float | None
    start_bias: float | None

    def embed_images(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit rows, with gradient, on the towers' device."""

    def embed_texts(self, tokens: Ragged) -> Float[Tensor, "B D"]:
        """Unit rows, with gradient, on the towers' device."""


@final
class Clip(Method):
    """Images are anchors; texts and mined texts of all ranks and an image's own edited texts are the bank.

    An objective that is symmetric scores each image's text against all images as well: the reverse direction
    is the same relation transposed. No mask tells which of several texts of an image are right: they carry
    ids that the image is known to match. Edited texts ("edit": m to an image, image by image) are wrong for
    the image they were made for and nobody else's candidates.

    Attributes:
        encoder: both towers.
        temperature: scales the cosines.
    """

    views: ClassVar[tuple[str, ...]] = ("image", "text", "negative", "edit")
    embeddings: ClassVar[Mapping[str, str]] = {kind: kind for kind in views}

    def __init__(
        self,
        encoder: nn.Module,
        temperature: Temperature,
        *,
        objective: Objective,
        bias: Bias | None = None,
        guard: Guard | None = None,
        private_negatives: bool = False,
    ) -> None:
        """Who is compared with whom.

        Args:
            encoder: embeds images and texts: `Towers`.
            temperature: scales the cosines.
            objective: makes a loss per image of the contrast.
            bias: added to every logit.
            guard: what the objective ignores as likely positives, for statistics.
            private_negatives: True: of the mined texts an image sees its own alone.
        """
        super().__init__()
        self.encoder = encoder
        self.temperature = temperature
        self.objective = objective
        self.bias = bias
        self.guard = guard
        self._share_negatives = not private_negatives

    @classmethod
    def build(cls, config: MethodConfig, encoder: nn.Module) -> Clip:
        """The method as the config says; what it does not say of scale and bias, a pretrained model knows."""
        temperature, bias = _starts(config, cast(Towers, encoder))
        return cls(
            encoder,
            _build_temperature(temperature, learned=config.learned_temperature),
            objective=build_two_way(config),
            bias=bias,
            guard=build_guard(config),
            private_negatives=config.negatives == "private",
        )

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Vectors of the images and of all views of texts that the batch has."""
        towers = cast(Towers, self.encoder)
        return {
            # Sources of image-text pairs give pixels and token ids.
            kind: towers.embed_images(cast(Pixels, view.inputs).values)
            if kind == "image"
            else towers.embed_texts(cast(Ragged, view.inputs))
            for kind, view in batch.views.items()
        }

    def contrasts(self, embeddings: Embeddings, batch: Batch) -> tuple[Contrast]:
        """This rank's images against the bank; row i's target is the text beside it."""
        anchors = embeddings["image"]
        shared = {"text": True, "negative": self._share_negatives, "edit": False}
        bank = Bank(
            tuple(
                view_part(kind, embeddings, batch, shared=share)
                for kind, share in shared.items()
                if kind in batch.views
            )
        )
        contrast = Contrast(
            anchors=anchors,
            known=batch.known,
            bank=bank,
            targets=rank() * len(anchors) + torch.arange(len(anchors)),
            scale=self.temperature.scale(),
            bias=None if self.bias is None else self.bias.value,
            own=_own_columns(bank, num_anchors=len(anchors)),
        )
        return (contrast,)

    def after_step(self, embeddings: Embeddings, batch: Batch, progress: float) -> None:
        """Moves a learned temperature back into its range."""
        self.temperature.limit()


def _starts(config: MethodConfig, towers: Towers) -> tuple[float, Bias | None]:
    """Where temperature and bias start: what is set, else what the model learned, else the defaults.

    The sigmoid's two belong together: those of a model that has no bias were learned for another objective.
    """
    temperature, bias = towers.start_temperature, towers.start_bias
    if config.objective == "sigmoid" and bias is None:
        temperature = None
    if temperature is None or "temperature" in config.model_fields_set:
        temperature = config.temperature
    if config.objective != "sigmoid":
        return temperature, None
    return temperature, Bias(config.bias if bias is None or "bias" in config.model_fields_set else bias)


def _build_temperature(start: float, *, learned: bool) -> Temperature:
    """A learned scale stays in 1 .. 100 (section 2.5), or up to that of a model which learned a larger one.

    SigLIP bounds none: google/siglip-base-patch16-224 has 117.
    """
    return Temperature(
        start, learned=learned, min_scale=min(1.0, 1.0 / start), max_scale=max(MAX_SCALE, 1.0 / start)
    )


def _own_columns(bank: Bank, *, num_anchors: int) -> Int64[Tensor, "A K"] | None:
    """Each image's columns in all private parts of the bank; None where there is none."""
    found = [private_columns(bank, number, num_anchors=num_anchors) for number in range(1, len(bank.parts))]
    private = [columns for columns in found if columns is not None]
    return torch.cat(private, dim=1) if private else None
