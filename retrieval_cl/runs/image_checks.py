"""Settings on mining among images, and among images with captions. Light: no library is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from retrieval_cl.core.errors import InputError
from retrieval_cl.methods.config import IMAGE_METHODS, READS, MethodConfig
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.runs.image_text_config import ImageTextEvaluationConfig, ImageTextTrainingConfig
from retrieval_cl.training.config import REMINING, TrainingConfig

# Texts alone have these: images are mined with the vectors of the model in training, at a round's start.
_OF_TEXTS = ("candidates", "second_model", "reranker", "near_text")


def check_image_mining(method: MethodConfig, mining: MiningConfig, training: TrainingConfig) -> None:
    """Raises InputError for negatives that the method does not take, or that settings cannot give."""
    if training.num_negatives == 0:
        return
    if "negatives" not in READS[method.name]:
        takers = ", ".join(name for name in IMAGE_METHODS if "negatives" in READS[name])
        raise InputError(
            f"training.num_negatives is {training.num_negatives}, but method '{method.name}' takes no "
            f"negatives; set it to 0, or method.name to one of {takers}"
        )
    _check_mining(mining, training, among="images", sources=("dense", "random"))


def check_image_text(
    method: MethodConfig,
    mining: MiningConfig,
    training: ImageTextTrainingConfig,
    evaluation: ImageTextEvaluationConfig,
) -> None:
    """Raises InputError for settings that do not fit each other, or that images with captions do not have."""
    if evaluation.probe is not None and not training.eval_at_start:
        raise InputError(
            "evaluation.probe needs training.eval_at_start: what the model could before is its measure"
        )
    if training.num_negatives == 0:
        if "mined" in training.model_fields_set:
            raise InputError(
                f"training.mined: {training.mined} has no effect with training.num_negatives 0; raise it"
            )
        return
    cluster = 1 + training.num_negatives
    if training.mined == "pairs" and training.batch_size % cluster:
        raise InputError(
            f"training.batch_size {training.batch_size}: not a multiple of {cluster}, an image and its "
            f"{training.num_negatives} mined pairs"
        )
    if training.mined == "pairs" and "negatives" in method.model_fields_set:
        raise InputError(
            f"method.negatives: {method.negatives} has no effect with training.mined: pairs, which are in "
            "the batch; set training.mined to texts"
        )
    _check_mining(mining, training, among="images with captions", sources=("dense", "other", "random"))


def _check_mining(
    mining: MiningConfig, training: TrainingConfig, *, among: str, sources: Sequence[str]
) -> None:
    """Raises InputError for negatives that no round is mined for, or settings that only texts have."""
    if training.first_mined_round >= training.rounds:
        raise InputError(
            f"training.num_negatives {training.num_negatives} has no effect: no round is mined for (rounds "
            f"{training.rounds}, first_mined_round {training.first_mined_round}); raise training.rounds"
        )
    for key in _OF_TEXTS:
        if getattr(mining, key) != MiningConfig.model_fields[key].default:
            raise InputError(f"mining.{key} has no effect among {among}; remove it")
    for source in mining.source_quotas:
        if source not in sources:
            raise InputError(
                f"mining.quotas names '{source}', which {among} do not have; valid: {', '.join(sources)}"
            )
    for key in sorted(REMINING - {"remine_every"}):
        if getattr(training, key) != TrainingConfig.model_fields[key].default:
            raise InputError(
                f"training.{key} has no effect among {among}, which are mined at a round's start; remove it"
            )
