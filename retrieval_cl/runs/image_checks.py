"""What mining among images cannot do, refused before anything is read. Light: no library is loaded."""

from __future__ import annotations

from retrieval_cl.core.errors import InputError
from retrieval_cl.methods.config import IMAGE_METHODS, READS, MethodConfig
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.training.config import REMINING, TrainingConfig

# Texts alone have these: images are mined with the vectors of the model in training, at a round's start.
_OF_TEXTS = ("candidates", "second_model", "reranker", "near_text")
_SOURCES = ("dense", "random")


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
    if training.first_mined_round >= training.rounds:
        raise InputError(
            f"training.num_negatives {training.num_negatives} has no effect: no round is mined for (rounds "
            f"{training.rounds}, first_mined_round {training.first_mined_round}); raise training.rounds"
        )
    for key in _OF_TEXTS:
        if getattr(mining, key) != MiningConfig.model_fields[key].default:
            raise InputError(f"mining.{key} has no effect among images; remove it")
    for source in mining.source_quotas:
        if source not in _SOURCES:
            raise InputError(
                f"mining.quotas names '{source}', which images do not have; valid: {', '.join(_SOURCES)}"
            )
    for key in sorted(REMINING - {"remine_every"}):
        if getattr(training, key) != TrainingConfig.model_fields[key].default:
            raise InputError(
                f"training.{key} has no effect among images, which are mined at a round's start; remove it"
            )
