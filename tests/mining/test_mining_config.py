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
        ({"shortage": "widen"}, "shortage 'widen' needs widest, a depth above 100"),
        ({"widest": 200}, "widest has no effect with shortage 'fewer'; set shortage to 'widen'"),
        ({"shortage": "widen", "widest": 100}, "widest 100 must be greater than depth 100"),
        ({"near_text": 0}, "greater than 0"),
        ({"near_text": 1.1}, "less than or equal to 1"),
        ({"near_vector": -1}, "greater than -1"),
        ({"second_model": ""}, "at least 1 character"),
        ({"reranker": ""}, "at least 1 character"),
        ({"quotas": {"bm25": 1}}, "'lexical'"),
        ({"quotas": {"lexical": -1}}, "greater than or equal to 0"),
        ({"quotas": {"lexical": True}}, "quotas.lexical"),
        ({"quotas": {"lexical": {"least": 2, "most": 1}}}, "most 1 is below least 2"),
        ({"quotas": {"lexical": {}}}, "has no effect; set least, most or candidates"),
        ({"quotas": {"lexical": {"candidates": 0}}}, "greater than or equal to 1"),
        ({"quotas": {"lexical": 3, "random": 2}}, "quotas want 5 places; num_negatives is 4"),
        ({"quotas": {"dense": {"candidates": 5}}}, "quotas.dense.candidates: set depth"),
        ({"quotas": {"random": {"least": 1, "candidates": 5}}}, "random passages are drawn, not found"),
        ({"quotas": {"random": 0}}, "quotas.random without a least has no effect"),
        ({"quotas": {"previous": 1}, "rank_min": 4}, "quotas.previous has no effect: its list holds 4"),
        ({"quotas": {"lexical": {"candidates": 9}}, "rank_min": 9}, "quotas.lexical has no effect"),
        ({"quotas": {"random": {"least": 1}}}, "quotas.random: give a number"),
        ({"quotas": {"random": 1}, "shortage": "random"}, "give {least: 1}, or another shortage"),
    ],
)
def test_impossible_setting_is_refused(settings, message):
    with pytest.raises(ValidationError) as caught:
        MiningConfig(**settings)
    errors = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in caught.value.errors()]
    assert any(message in error for error in errors), errors
    assert not any("\n" in error for error in errors)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        (2, {"least": 2, "most": 2, "candidates": None}),
        ({"least": 1}, {"least": 1, "most": None, "candidates": None}),
        ({"candidates": 7}, {"least": 0, "most": None, "candidates": 7}),
    ],
)
def test_quota_is_a_number_or_its_parts(quota, expected):
    config = MiningConfig(quotas={"lexical": quota})
    assert config.source_quotas["lexical"].model_dump() == expected
    assert MiningConfig(**config.model_dump()) == config


@pytest.mark.parametrize(
    "settings",
    [
        {"shortage": "widen", "widest": 101},
        {"quotas": {"random": {"least": 1}}, "shortage": "random"},
        {"quotas": {"random": 1}},
        {"quotas": {"random": 1}, "rank_min": 50},
        {"quotas": {"previous": 1}, "rank_min": 3},
        {"quotas": {"lexical": 2, "second": 1, "random": 1}},
        {"near_text": 1.0, "near_vector": 1.0},
    ],
)
def test_setting_at_its_bound_is_accepted(settings):
    assert MiningConfig(**settings).num_negatives == 4


def test_places_for_random_passages_are_those_its_quota_guarantees():
    assert MiningConfig().num_random == 0
    assert MiningConfig(quotas={"random": 2}).num_random == 2


def test_written_settings_read_back_as_they_were():
    config = MiningConfig(sampling="weighted", temperature=0.1, rank_min=5, margin=0.05)
    assert MiningConfig(**config.model_dump()) == config
    assert MiningConfig().last_rank == MiningConfig().depth


def test_every_setting_is_described():
    assert all(field.description for field in MiningConfig.model_fields.values())
