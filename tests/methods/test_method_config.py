"""Settings of methods: each reads its own, refuses the others, and starts from its paper's."""

import subprocess
import sys

import pytest
from image_methods import ImageTower
from image_text_methods import Towers
from pydantic import ValidationError

from retrieval_cl.encoders.head_config import HeadConfig
from retrieval_cl.methods import config, load_method, method_names
from retrieval_cl.methods.config import DEFAULTS, PRESETS, READS, MethodConfig

# A config of each method that has the settings which others need to be read.
MORE = {
    "dual_encoder": ({"objective": "sigmoid", "guard": {"margin": 0.1}}, {"memory": 5}),
    "moco": ({"norm": "split", "projector": {"preset": "moco_v3"}}, {"queue": 0, "in_batch_keys": True}),
    "simclr": ({"norm": "split"},),
    "byol": ({"norm": "split"},),
    "clip": ({"objective": "sigmoid", "guard": {"margin": 0.1}},),
}
TOWERS = {"clip": Towers}


class Recorded(MethodConfig):
    """Remembers which of its settings were looked at."""

    def __getattribute__(self, name):
        if name in MethodConfig.model_fields:
            SEEN.add(name)
        return super().__getattribute__(name)


SEEN = set()


@pytest.mark.parametrize("name", method_names())
def test_method_reads_what_the_table_says_and_nothing_else(name, make_text_encoder):
    found = set()
    for settings in ({}, *MORE[name]):
        recorded = Recorded(name=name, **settings)
        SEEN.clear()
        tower = make_text_encoder() if name == "dual_encoder" else TOWERS.get(name, ImageTower)()
        load_method(name).build(recorded, tower)
        found |= SEEN
    assert found - {"name"} == set(READS[name])


def test_every_method_is_in_the_table_and_every_setting_is_read():
    assert sorted(READS) == method_names()
    assert {key for keys in READS.values() for key in keys} | {"name"} == set(MethodConfig.model_fields)


@pytest.mark.parametrize("name", method_names())
def test_setting_that_a_method_does_not_read_is_refused(name):
    others = set(MethodConfig.model_fields) - {"name", *READS[name]}
    assert others
    for key in others:
        default = MethodConfig().__dict__[key]
        with pytest.raises(ValidationError, match=f"{key} has no effect in method {name}; it is read by "):
            MethodConfig(name=name, **{key: default})


def test_methods_start_from_their_papers():
    assert MethodConfig().temperature == 0.05
    assert MethodConfig(name="simclr").temperature == 0.5
    moco, byol = MethodConfig(name="moco"), MethodConfig(name="byol")
    assert (moco.temperature, moco.momentum, moco.momentum_schedule, moco.queue) == (
        0.2,
        0.999,
        "constant",
        65536,
    )
    assert moco.projector == HeadConfig(preset="moco_v2") and moco.predictor is None
    clip, siglip = MethodConfig(name="clip"), MethodConfig(name="clip", objective="sigmoid")
    assert (clip.temperature, clip.learned_temperature, clip.objective) == (0.07, True, "info_nce")
    assert (siglip.temperature, siglip.learned_temperature, siglip.bias) == (0.1, True, -10.0)
    assert MethodConfig(name="clip", objective="sigmoid", temperature=0.3).temperature == 0.3
    assert MethodConfig(objective="sigmoid").temperature == 0.05
    assert (byol.momentum, byol.momentum_schedule, byol.loss_factor) == (0.99, "cosine", 2.0)
    assert byol.projector == byol.predictor == HeadConfig(preset="byol")
    assert MethodConfig(name="byol", momentum=0.9, predictor=None).momentum == 0.9
    assert MethodConfig(name="byol", predictor=None).predictor is None


def test_default_of_a_method_is_no_setting():
    """A saved config names what was set: read with another method, nothing of the first is in the way."""
    for name in DEFAULTS:
        plain = MethodConfig(name=name)
        assert plain.model_dump(exclude_unset=True) == {"name": name}
        assert MethodConfig(**plain.model_dump(exclude_unset=True)) == plain
        assert DEFAULTS[name].keys() <= set(READS[name])


def test_head_without_a_preset_departs_from_that_of_its_method():
    for name, heads in PRESETS.items():
        for key, preset in heads.items():
            found = getattr(MethodConfig(name=name, **{key: {"hidden": 32}}), key)
            assert found == HeadConfig(preset=preset, hidden=32)
    assert MethodConfig(name="byol", projector={"preset": "dkobak"}).projector.preset == "dkobak"
    assert MethodConfig(name="byol", projector=HeadConfig(dim=8)).projector == HeadConfig(dim=8)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"name": "moco", "queue": 0}, "queue: 0 leaves a query no negative; set in_batch_keys"),
        ({"name": "simclr", "split_batches": 4}, "split_batches: 4 has no effect with norm: batch"),
        ({"name": "byol", "momentum": 1.0}, "momentum"),
        ({"name": "byol", "projector": {"preset": "byool"}}, "preset"),
        ({"name": ["byol"]}, "name"),
        ({"name": "clip", "symmetric": True}, "symmetric has no effect in method clip"),
        ({"name": "clip", "bias": -5.0}, "bias has no effect with objective: info_nce"),
        ({"name": "clip", "objective": "sigmoid", "hardness": 1.0}, "hardness: 1.0 has no effect"),
        ({"name": "clip", "objective": "sigmoid", "positives": "mean"}, "positives: mean is not known"),
        ({"name": "clip", "temperature": 2.0}, "temperature 2.0: a learned temperature stays within"),
        ({"name": "mocco"}, "did you mean 'moco'"),
    ],
)
def test_impossible_settings_of_image_methods_are_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        MethodConfig(**settings)


def test_method_file_without_a_line_in_the_table_is_refused(monkeypatch):
    monkeypatch.setattr(config, "READS", {name: keys for name, keys in READS.items() if name != "simclr"})
    with pytest.raises(ValidationError, match=r"methods/simclr\.py has no line in READS"):
        MethodConfig(name="simclr")


def test_settings_need_no_model_library():
    code = "import sys, retrieval_cl.methods.config; print('torch' in sys.modules, 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
