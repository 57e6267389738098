"""What the settings of an image method ask for: its heads, its norms, how its twin moves, how views pass."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.momentum import Momentum, constant_momentum, cosine_momentum
from retrieval_cl.core.ranks import num_ranks
from retrieval_cl.encoders import heads
from retrieval_cl.encoders.batch_norm import SplitBatchNorm, SyncBatchNorm, convert_norms
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.image_tower import Branch, EmbedViews, ImageTower, views_apart, views_together


def build_branch(config: MethodConfig, encoder: nn.Module) -> Branch:
    """The tower and its projector, both with the norms that are asked for; changes the tower's in place."""
    tower: ImageTower = encoder  # type: ignore[assignment]
    projector = heads.build_projector(config.projector, tower.dim)
    branch = Branch(encoder, projector, dim=projector.dim)
    _convert(config, branch)
    return branch


def build_predictor(config: MethodConfig, branch: Branch) -> nn.Module | None:
    """From a projection to a prediction of another; None where there is none."""
    if config.predictor is None:
        return None
    predictor = heads.build_predictor(config.predictor, branch.dim)
    _convert(config, predictor)
    return predictor


def build_momentum(config: MethodConfig) -> Momentum:
    """How fast the twin follows."""
    schedule = {"constant": constant_momentum, "cosine": cosine_momentum}[config.momentum_schedule]
    return schedule(config.momentum)


def choose_views(config: MethodConfig) -> EmbedViews:
    """How both views pass the encoder."""
    return views_together if config.views_together else views_apart


def shuffles_keys(config: MethodConfig, branch: Branch) -> bool:
    """Whether keys must pass in another order than queries, see `shuffled`."""
    of_a_part = config.norm == "split" or (config.norm == "batch" and num_ranks() > 1)
    return of_a_part and _has_norms(branch)


def refuse_idle_norm(config: MethodConfig, *trained: nn.Module | None) -> None:
    """Raises InputError where another kind of BatchNorm is asked for and none of the modules has any."""
    if config.norm != "batch" and not any(_has_norms(module) for module in trained if module is not None):
        raise InputError(
            f"method.norm: {config.norm} has no effect: neither the encoder nor its heads have BatchNorm "
            "layers; remove it"
        )


def _has_norms(module: nn.Module) -> bool:
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


def _convert(config: MethodConfig, module: nn.Module) -> None:
    if config.norm == "split":
        convert_norms(module, partial(SplitBatchNorm, num_splits=config.split_batches))
    elif config.norm == "sync":
        convert_norms(module, SyncBatchNorm)
