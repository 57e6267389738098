import pytest
from pydantic import ValidationError

from retrieval_cl.training.config import TrainingConfig


def test_every_setting_is_described():
    for name, field in TrainingConfig.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"steps": 100, "epochs_per_round": 2.0}, "epochs_per_round has no effect beside steps"),
        ({"steps": 100, "first_round_epochs": 2.0}, "first_round_epochs has no effect beside steps"),
        ({"steps": 2, "rounds": 3}, "steps 2 are fewer than rounds 3"),
        ({"rounds": 1, "first_round_epochs": 2.0}, "first_round_epochs has no effect with one round"),
        ({"batch_size": 1}, "batch_size"),
        ({"lr": 0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"warmup_share": 1.0}, "warmup_share"),
        ({"schedule": "cosin"}, "schedule"),
        ({"precision": "fp16"}, "precision"),
        ({"chunk_tokens": 0}, "chunk_tokens is 0; expected a whole number from 1, auto or null"),
        ({"chunk_tokens": "all"}, "chunk_tokens is 'all'; expected a whole number from 1, auto or null"),
        ({"chunk_tokens": 64, "graph_tokens": -1}, "graph_tokens"),
        ({"graph_tokens": 64}, "graph_tokens has no effect with chunk_tokens null"),
        ({"chunk_tokens": "auto", "graph_tokens": 64}, "graph_tokens has no effect with chunk_tokens auto"),
        ({"lerning_rate": 1.0}, "lerning_rate"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"momentum": 0.8}, "momentum has no effect with optimizer adamw; it is of sgd and lars"),
        ({"optimizer": "sgd", "betas": (0.9, 0.98)}, "betas has no effect with optimizer sgd"),
        ({"optimizer": "lars", "adam_eps": 1e-6}, "adam_eps has no effect with optimizer lars"),
        ({"optimizer": "sgd", "lars_eta": 0.02}, "lars_eta has no effect with optimizer sgd; it is of lars"),
        ({"lars_clip": True}, "lars_clip has no effect with optimizer adamw"),
        ({"optimizer": "lars", "decays": "all"}, "decays 'all' has no effect with optimizer lars"),
        ({"decays": "all", "weight_decay": 0.0}, "decays has no effect: weight_decay is 0"),
        ({"betas": (0.9, 1.0)}, r"training.betas are \[0.9, 1.0\]; expected two numbers from 0 to below 1"),
        ({"optimizer": "sgd", "momentum": 1.0}, "momentum"),
        ({"lr_reference_batch": 0}, "lr_reference_batch"),
    ],
)
def test_impossible_or_idle_setting_is_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        TrainingConfig(**settings)
