"""The GPU sections of image training, at tiny size on a CPU."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
CPU = torch.device("cpu")


@pytest.fixture
def gpu_images():
    return importlib.import_module("gpu_images")


def test_sections_are_in_the_list():
    sections = importlib.import_module("gpu").SECTIONS
    ours = {name: place[1] for name, place in sections.items() if place[0].startswith("gpu_image")}
    assert ours == {"images": "images", "images_wait": "no_wait", "images_run": "whole_run"}


def test_shares_of_a_step_add_up_and_rates_stand_beside_the_anchor(gpu_images):
    rows = gpu_images.images(CPU, quick=True)
    assert [row.unit for row in rows] == ["images/s"] * 2 + ["share"] * 5
    assert sum(row.ours for row in rows[2:]) == pytest.approx(1) and min(row.ours for row in rows) > 0
    assert rows[0].peer == 4200 and rows[0].ratio == rows[0].ours / 4200
    assert [row.name.rpartition(" ")[2] for row in rows[2:]] == [
        "augmentation",
        "forward",
        "loss",
        "backward",
        "optimizer",
    ]


def test_waits_are_looked_for_in_steps_of_every_method(gpu_images, monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    assert len(gpu_images.no_wait(CPU, quick=True)) == 3
    assert modes == ["error", "default", "default"] * 3


def test_run_that_is_stopped_twice_ends_as_one_that_is_not(tmp_path, monkeypatch):
    gpu_image_run = importlib.import_module("gpu_image_run")

    def call(name, *more):
        file = tmp_path / f"{name}.json"
        folder = ["--folder", str(tmp_path / name), "--epochs", "3", "--json", str(file)]
        code = gpu_image_run.main(["--quick", "--threads", "1", *folder, *more])
        return code, json.loads(file.read_text()) if file.exists() else []

    code, rows = call("whole")
    accuracies = [row["ours"] for row in rows if row["unit"] == "share"]
    assert code == 0 and len(accuracies) == 2

    class Stop:
        """Ctrl-C after the fourth step that it sees."""

        def __init__(self, stream):
            self.seen = 0

        def show(self, status):
            self.seen += 1
            if self.seen == 4:
                raise KeyboardInterrupt

        def close(self):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(gpu_image_run, "Lines", Stop)
        assert call("cut") == (3, []) == call("cut", "--seconds", "500")
    code, rows = call("cut")
    assert code == 0 and [row["ours"] for row in rows if row["unit"] == "share"] == accuracies
