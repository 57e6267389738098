import importlib
import sys
from pathlib import Path

import image_text_methods
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
shared_captions = importlib.import_module("clip_shared_captions")


def test_own_ids_make_every_other_text_a_negative():
    batch = image_text_methods.build_batch(6)
    assert len(batch.views["text"].ids.unique()) < 6
    method, unlike = image_text_methods.build_clip(), shared_captions.own_ids(batch)
    found = method.embed(batch)
    logits = method.temperature.scale() * found["image"] @ found["text"].T
    there, back = (-each.log_softmax(dim=1).diagonal() for each in (logits, logits.T))
    torch.testing.assert_close(method.loss(found, unlike), (there + back) / 2)
    assert (method.loss(found, batch) < method.loss(found, unlike)).any()
    assert unlike.views["image"].inputs is batch.views["image"].inputs


def test_arms_are_compared_seed_by_seed():
    values = {"left out": [0.9, 0.7], "positives": [0.6, 0.8], "ignored": [0.5, 0.8]}
    found = {
        arm: [dict.fromkeys(shared_captions.METRICS, value) for value in each] for arm, each in values.items()
    }
    rows = shared_captions.compare_arms(found, what="x", steps=9)
    assert [(row.ours, row.peer) for row in rows[:3]] == [(0.9, 0.5), (0.7, 0.8), (0.8, 0.65)]
    assert len({row.name for row in rows}) == len(rows) == 18
    assert rows[2].name == "x, image_to_text success@1, left out beside ignored, 9 steps, mean"


@pytest.mark.slow
def test_an_arm_is_trained_and_measured():
    found = shared_captions.measure_arm("positives", captions="class", objective="sigmoid", seed=0, steps=30)
    assert tuple(found) == shared_captions.METRICS
    assert 0.2 < found["image_to_text success@1"] < 1
