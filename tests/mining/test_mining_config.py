"""Impossible mining settings are refused with the reason."""

import pytest
from pydantic import ValidationError

from retrieval_cl.mining.config import MiningConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 10, "rank_max": 20}, "rank_max 20 lies beyond depth 10"),
        ({"rank_min": 30, "rank_max": 30}, "rank_max 30 must be greater than rank_min 30"),
        ({"depth": 50, "rank_min": 60}, "rank_max 50 must be greater than rank_min 60"),
        ({"rank_min": 8, "rank_max": 10, "num_negatives": 3}, "fewer passages than num_negatives 3"),
        ({"min_score": 0.5, "max_score": 0.25}, "min_score 0.5 is greater than max_score 0.25"),
        ({"sampling": "weighted"}, "needs a temperature"),
        ({"temperature": 0.1}, "temperature has no effect with sampling 'top'"),
        ({"positive": "middle"}, "weakest"),
        ({"margin": -0.1}, "greater than or equal to 0"),
        ({"num_negativs": 3}, "num_negativs"),
    ],
)
def test_impossible_setting_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        MiningConfig(**settings)


def test_written_settings_read_back_as_they_were():
    config = MiningConfig(sampling="weighted", temperature=0.1, rank_min=5, margin=0.05)
    assert MiningConfig(**config.model_dump()) == config
    assert MiningConfig().last_rank == MiningConfig().depth


def test_every_setting_is_described():
    assert all(field.description for field in MiningConfig.model_fields.values())
