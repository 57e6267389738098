import importlib
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
clip_mining = importlib.import_module("clip_mining")


@pytest.mark.parametrize("start", [None, Path("runs/first/model")])
def test_arms_differ_in_their_mined_pairs_alone(start):
    given = Namespace(data=Path("data/x"), cache=None, start=start)
    configs = [
        clip_mining.config_of(name, seed=1, steps=9, output="x", given=given).model_dump()
        for name in clip_mining.ARMS
    ]
    mining = [config.pop("mining") for config in configs]
    negatives = [config["training"].pop("num_negatives") for config in configs]
    assert negatives == [0, 1, 1] and mining[0] != mining[1] != mining[2]
    assert configs[0] == configs[1] == configs[2]
    assert configs[0]["encoder"]["path"] == (None if start is None else str(start))


def test_arms_are_compared_query_by_query():
    def found(value):
        values = {what: np.array([value, 0.0, 1.0]) for what in clip_mining.MEASURES}
        return [dict.fromkeys(clip_mining.DIRECTIONS, values)]

    rows = clip_mining.compare_arms({"mined": found(1.0), "in-batch": found(0.0)}, steps=9)
    assert [(row.ours, row.peer) for row in rows[:2]] == [(pytest.approx(2 / 3), pytest.approx(1 / 3))] * 2
    lines = clip_mining.tests({"mined": found(1.0), "in-batch": found(0.0)})
    assert len(lines) == 4 and lines[0].startswith(
        "seed 0, mined - in-batch: text_to_image success@1 +0.3333"
    )


@pytest.mark.slow
def test_an_arm_is_trained_and_measured():
    given = Namespace(data=None, cache=None, start=None)
    values, seconds = clip_mining.run_arm("mined", seed=0, steps=6, given=given)
    assert seconds > 0 and 0 < clip_mining.share(values, "image_to_text", "success@10") <= 1
