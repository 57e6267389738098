import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
image_mining = importlib.import_module("image_mining")


def test_arms_differ_in_their_negatives_alone(tmp_path):
    configs = {
        name: image_mining.config_of(name, seed=1, steps=8, output=str(tmp_path)).model_dump()
        for name in image_mining.ARMS
    }
    mining = [config.pop("mining") for config in configs.values()]
    negatives = [config["training"].pop("num_negatives") for config in configs.values()]
    assert negatives == [0, 2, 2] and mining[0] != mining[1] != mining[2]
    assert configs["without"] == configs["random"] == configs["mined"]
    assert configs["mined"]["source"]["warped"] and configs["mined"]["training"]["steps"] == 8


def test_arms_are_compared_seed_by_seed():
    rows = image_mining.compare_arms({"without": [0.5, 0.8], "mined": [0.6, 0.8]}, steps=9)
    assert [(row.ours, row.peer) for row in rows] == [(0.6, 0.5), (0.8, 0.8), (0.7, 0.65)]
    assert rows[-1].name == "kNN, mined beside without, 9 steps, mean"


@pytest.mark.slow
def test_an_arm_is_trained_and_measured():
    assert 0.3 < image_mining.accuracy("mined", seed=0, steps=4) < 1
