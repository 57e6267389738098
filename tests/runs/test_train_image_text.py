"""The story of a run on images with texts: what it leaves, that it goes on in the same bits, its refusals."""

import json

import numpy as np
import pytest
from tiny_clip import SMALL

from retrieval_cl.config import check_training, load_any_config, load_image_text_config
from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.load_image_text import load_image_text_encoder
from retrieval_cl.runs.evaluate_image_text import evaluate_image_text
from retrieval_cl.runs.models import find_model
from retrieval_cl.runs.train_image_text import train_image_text

SHORT = ("training.steps=8", "training.lr=0.005", "evaluation.dev_images=40", "training.log_every=2")
MINED = (
    "training.rounds=2",
    "training.num_negatives=1",
    "mining.depth=30",
    "mining.rank_min=2",
    "mining.num_negatives=3",
    "mining.quotas={other: 1}",
)
CASES = {
    "in-batch": (),
    "mined pairs": MINED,
    "mined texts, edits, augmented": (
        *MINED,
        "training.mined=texts",
        "training.edits=1",
        "augmentation={preset: digits}",
    ),
    "sigmoid": ("method.objective=sigmoid", "method.positives=sum"),
}
CLOCKS = ("seconds", "pairs_per_second", "mining_seconds", "leak_check_seconds")


class Killed(Exception):
    """A process that dies."""


class KillAt:
    """Dies when a step is shown, before its checkpoint."""

    def __init__(self, step):
        self.step = step

    def show(self, status):
        if status.step == self.step:
            raise Killed

    def close(self):
        pass


def train(folder, *settings, **options):
    config = load_image_text_config(None, [*SMALL, *SHORT, *settings, f"output={folder}"])
    return train_image_text(config, command="retrieval-cl train x", **options)


def results(folder):
    return json.loads((folder / "results.json").read_text())


def lines_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


def test_a_run_leaves_both_directions_zero_shot_and_their_protocol(clip_run_once):
    folder = clip_run_once / "run"
    found = results(folder)
    for part in ("text_to_image", "image_to_text"):
        assert set(found[part]) == {f"{m}@{k}" for m in ("success", "recall") for k in (1, 5, 10)}
        assert all(0 <= value <= 1 for value in found[part].values())
        for name in ("before training", "trained"):
            row = found["systems"][part][name]["success@10"]
            assert row["low"] <= row["mean"] <= row["high"]
    # 30 steps of a tiny model: more than chance (one in ten) and more than untrained weights.
    assert found["zero_shot_accuracy"] > 0.3
    assert {one["than"] for one in found["comparisons"]} == {"before training"}
    assert "540 images and 80 distinct captions of split test" in found["protocol"]["retrieval"]
    assert (found["num_train_images"], found["num_test_images"]) == (1078, 540)
    for name in ("model", "report.html", "metrics.jsonl", "config.yaml", "text_to_image.jsonl"):
        assert (folder / name).exists(), name
    page = (folder / "report.html").read_text()
    assert "text to image" in page and "a handwritten" in page and "<img" in page


def test_the_saved_config_is_that_of_a_run_on_images_with_texts(clip_run_once):
    config = load_any_config(clip_run_once / "run" / "config.yaml")
    assert config.method.name == "clip" and config.source.kind == "caption_digits"


def test_eval_of_the_saved_model_gives_the_numbers_of_the_run(clip_run_once, tmp_path):
    model = find_model(str(clip_run_once / "run"))
    config = load_image_text_config(clip_run_once / "run" / "config.yaml")
    done = evaluate_image_text(config, model, output=tmp_path / "eval")
    ours, theirs = results(tmp_path / "eval"), results(clip_run_once / "run")
    for part in ("text_to_image", "image_to_text", "zero_shot_accuracy"):
        assert ours[part] == theirs[part]
    assert (tmp_path / "eval" / "image_to_text.jsonl").is_file() and "success@10" in done.text()


@pytest.mark.slow
def test_two_models_are_tested_query_by_query(clip_run_once, tmp_path):
    other = train(tmp_path / "other", "training.seed=3")
    model, config = find_model(str(clip_run_once / "run")), load_image_text_config(None, list(SMALL))
    against = find_model(str(other.folder))
    evaluate_image_text(config, model, against=against, output=tmp_path / "eval")
    found = results(tmp_path / "eval")
    assert {(one["system"], one["than"]) for one in found["comparisons"]} == {("run", "other")}
    with pytest.raises(InputError, match="the same model as the first"):
        evaluate_image_text(config, model, against=model, output=tmp_path / "eval")
    with pytest.raises(InputError, match="--trec has no effect on images with texts"):
        evaluate_image_text(config, model, write_trec=True, output=tmp_path / "eval")


@pytest.mark.parametrize(
    "name",
    [name if name == "mined pairs" else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_a_killed_run_goes_on_in_the_same_bits(name, tmp_path):
    settings = CASES[name]
    train(tmp_path / "whole", *settings, "training.save_every=2")
    with pytest.raises(Killed):
        train(tmp_path / "killed", *settings, "training.save_every=2", display=KillAt(7))
    assert not (tmp_path / "killed" / "model").exists()
    train(tmp_path / "killed", *settings, "training.save_every=2", resume=True)
    whole, again = (load_image_text_encoder(tmp_path / one / "model") for one in ("whole", "killed"))
    assert whole.fingerprint() == again.fingerprint()
    assert results(tmp_path / "killed")["text_to_image"] == results(tmp_path / "whole")["text_to_image"]


def test_another_augmentation_is_no_way_to_go_on(tmp_path):
    train(tmp_path / "run")
    with pytest.raises(InputError, match="started with augmentation None, now it is"):
        train(tmp_path / "run", "augmentation={preset: digits}", resume=True)


def test_the_model_keeps_the_scale_it_learned(clip_run_once):
    encoder = load_image_text_encoder(clip_run_once / "run" / "model")
    scales = [line["scale"] for line in lines_of(clip_run_once / "run") if "scale" in line]
    assert 1 / encoder.start_temperature == pytest.approx(scales[-1], rel=0.05)
    assert encoder.start_temperature != 0.07


def test_mining_is_told_with_the_source_of_each_candidate(tmp_path):
    done = train(tmp_path / "run", *MINED)
    (mined,) = done.run.rounds
    assert mined.counts.num_queries == 1078 and set(mined.counts.found) == {"dense", "other"}
    assert set(mined.counts.drawn) <= {"dense", "other"} and mined.counts.drawn["other"] > 0
    assert "What mining did" in (done.folder / "report.html").read_text()


@pytest.mark.slow
def test_a_probe_that_falls_keeps_the_weights_of_the_start(tmp_path):
    probe = "evaluation.probe={source: {kind: digits}, max_drop: 0, max_images: 50}"
    learned = train(tmp_path / "start", "training.steps=40", "training.lr=0.01")
    model = f"encoder={{kind: pretrained, path: {learned.folder / 'model'}}}"
    settings = [one for one in (*SMALL, *SHORT) if not one.startswith("encoder.")]

    def tune(name, *more):
        output = tmp_path / name
        config = load_image_text_config(None, [*settings, model, probe, *more, f"output={output}"])
        return train_image_text(config)

    # A rate that destroys what was learned: nothing but the start holds the probe.
    broken = tune("broken", "training.lr=1", "training.max_grad_norm=null", "training.warmup_share=0")
    start, *later = [line["dev"] for line in lines_of(broken.folder) if "dev" in line]
    assert start["guarded"] == start["mean_success@10"] and later[-1]["guarded"] == -1
    assert later[-1]["probe_zero_shot_accuracy"] < start["probe_zero_shot_accuracy"]
    assert broken.run.kept_step == 0
    found = results(broken.folder)["systems"]["zero_shot_accuracy"]
    assert found["zero-shot"] == found["fine-tuned"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("training.mined=texts",), "training.mined: texts has no effect with training.num_negatives 0"),
        (("training.num_negatives=1",), "no round is mined for"),
        (
            ("training.num_negatives=2", "training.rounds=2"),
            "training.batch_size 64: not a multiple of 3, an image and its 2 mined pairs",
        ),
        ((*MINED, "mining.near_text=0.8"), "mining.near_text has no effect among images with captions"),
        ((*MINED, "mining.quotas={lexical: 1}"), "'lexical', which images with captions do not have"),
        ((*MINED, "training.probe_every=2"), "training.probe_every has no effect among images with captions"),
        ((*MINED, "method.negatives=private"), "has no effect with training.mined: pairs"),
        (
            ("evaluation.probe={source: {kind: digits}}", "training.eval_at_start=false"),
            "evaluation.probe needs training.eval_at_start",
        ),
    ],
)
def test_settings_at_odds_are_refused_in_one_line(settings, message):
    config = load_image_text_config(None, [*SMALL, *settings])
    with pytest.raises(InputError, match=message) as error:
        check_training(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("evaluation.templates=[a photo]",), "'a photo' has no place for a class"),
        (("evaluation.metric=mean_sucess@10",), "not measured; did you mean 'mean_success@10'"),
        (("method.name=simclr",), "method 'simclr' takes images, source.kind 'caption_digits' gives images "),
        (("method.name=dual_encoder",), "takes texts, source.kind 'caption_digits' gives images with texts"),
        (
            ("evaluation.probe={source: {kind: digits}}", "evaluation.keep=last"),
            "probe has no effect with keep: last",
        ),
        (("encoder.locked=image",), "would keep the random weights"),
    ],
)
def test_a_config_that_cannot_be_is_refused_in_one_line(settings, message):
    with pytest.raises(InputError, match=message) as error:
        load_any_config(None, [*SMALL, *settings])
    assert "\n" not in str(error.value)


def test_a_batch_beyond_the_train_images_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"training\.batch_size 2000; valid is 2 to 1078, the train images"):
        train(tmp_path / "run", "training.batch_size=2000")


def test_data_option_finds_the_kind_of_images_with_texts(tmp_path):
    pairs = ("method.name=clip",)
    assert load_any_config(None, pairs, data="digits").source.kind == "caption_digits"
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 4, 4, 3), dtype=np.uint8))
    assert load_any_config(None, pairs, data=str(tmp_path)).source.kind == "image_text_npz"
    (tmp_path / "table.csv").write_text("image,caption\n")
    found = load_any_config(None, pairs, data=str(tmp_path / "table.csv"))
    assert found.source.kind == "image_text_table"
    assert load_any_config(None, pairs, data="shards/{0..3}.tar").source.kind == "image_text_tar"
    assert load_any_config(None, pairs, data="org/name").source.kind == "image_text_dataset"


def test_images_that_look_alike_are_one_item_where_asked(tmp_path, monkeypatch):
    joined = []

    def spy(images, groups, *, rows, device):
        joined.append(len(rows))
        return np.zeros_like(groups)

    monkeypatch.setattr("retrieval_cl.runs.train_image_text.join_near_copies", spy)
    # All images are one item: every caption matches every image, so that no image has a negative.
    run = train(tmp_path / "run", "source.near_copies=true", "training.steps=2")
    losses = [line["loss"] for line in lines_of(run.folder) if "loss" in line]
    assert joined == [1078] and losses and max(losses) == 0
