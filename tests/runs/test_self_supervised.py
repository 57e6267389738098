from contextlib import nullcontext
from dataclasses import replace

import image_runs
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from image_runs import COUNT, MINED, MINING, SIDE, TRAIN, item_ids, make_config, make_data, run_images

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.images import ArrayImages
from retrieval_cl.encoders.load_image import build_image_encoder
from retrieval_cl.runs import self_supervised
from retrieval_cl.runs.image_rounds import ImageMiner
from retrieval_cl.runs.image_vectors import ImageVectors
from retrieval_cl.runs.self_supervised import build_method, image_views, join_near_copies
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.sources.images.placed import DeviceImages, PickedImages, to_device
from retrieval_cl.training.callbacks import Save
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.progress import Progress
from retrieval_cl.training.run import Callback
from retrieval_cl.training.trainer import start_run, train

CPU = torch.device("cpu")
# Mined negatives in the round that is cut; queue, twin, BatchNorm of two kinds; three optimisers.
CASES = {
    "simclr": {
        "method": {"name": "simclr", "learned_temperature": True},
        "training": MINED,
        "mining": MINING,
    },
    "moco": {
        "method": {"name": "moco", "queue": 30, "symmetric": True, "norm": "split", "split_batches": 4},
        "training": {**MINED, "optimizer": "lars", "lr": 0.3},
        "mining": MINING,
    },
    "byol": {
        "method": {"name": "byol", "projector": {"hidden": 16, "dim": 8}, "predictor": {"hidden": 16}},
        "training": {"optimizer": "sgd"},
    },
}
MOCO_STATE = {"queue.vectors", "queue.ids", "queue.pushed"}


class Killed(BaseException):
    """What no handler expects, like a kill."""


class At:
    """A display that does something after certain steps; it comes before checkpoints are written."""

    def __init__(self, actions):
        self.actions = dict(actions)

    def show(self, status):
        if action := self.actions.pop(status.step, None):
            action()

    def close(self):
        pass


def kill():
    raise Killed


def last_files(config):
    """All that a run ends with: weights, state of the method and of the optimiser, the table."""
    folder = config.folder / "checkpoints" / "step-00000007"
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".json"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def assert_goes_on_in_the_same_bits(case, folder, *, save_every, killed_after):
    def config_in(name):
        training = {**case["training"], "save_every": save_every, "keep_checkpoints": 9}
        return make_config(folder / name, **{**case, "training": training})

    whole, cut = config_in("whole"), config_in("cut")
    expected = run_images(whole)
    with pytest.raises(Killed):
        run_images(cut, display=At({killed_after: kill}))
    # The images of one process lie elsewhere than those of the other, its generators stand anywhere.
    torch.manual_seed(999)
    found = run_images(cut, resume=True)
    assert last_files(whole).keys() >= {"model.safetensors", "optimizer.safetensors"}
    assert last_files(cut) == last_files(whole)
    assert image_runs.lines_of(found) == image_runs.lines_of(expected)
    assert found.encoder.fingerprint() == expected.encoder.fingerprint()
    return whole


@pytest.mark.parametrize("name", CASES)
def test_killed_run_goes_on_in_the_same_bits(name, tmp_path):
    whole = assert_goes_on_in_the_same_bits(CASES[name], tmp_path, save_every=5, killed_after=6)
    state = self_supervised.load_method(name).build(whole.method, build_image_encoder(whole.encoder, seed=0))
    names = set(state.state_dict())
    assert any(key.endswith("running_mean") for key in names)
    assert (name == "moco") == (names >= MOCO_STATE)
    assert (name != "simclr") == any(key.startswith("twin.") for key in names)
    assert ("negatives/rows.npy" in last_files(whole)) == (name != "byol")


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [2, 4, 7])
@pytest.mark.parametrize("name", CASES)
def test_run_killed_after_any_step_goes_on_in_the_same_bits(name, killed_after, tmp_path):
    assert_goes_on_in_the_same_bits(CASES[name], tmp_path, save_every=1, killed_after=killed_after)


def test_heads_start_alike_whatever_was_drawn_before(tmp_path):
    found = []
    for seed, drawn in ((0, 1), (0, 2), (5, 1)):
        torch.manual_seed(drawn)
        config = make_config(tmp_path, training={"seed": seed})
        method = build_method(config, build_image_encoder(config.encoder, seed=0))
        found.append(method.branch.projector.layers[0].weight.tolist())
        assert torch.initial_seed() == drawn
    assert found[0] == found[1] != found[2]


@pytest.mark.slow
def test_images_on_the_device_train_in_the_same_bits(tmp_path, monkeypatch):
    expected = run_images(make_config(tmp_path / "host", **CASES["simclr"]))
    monkeypatch.setattr(
        self_supervised,
        "_placed",
        lambda data, device, *, max_gb: replace(data, images=to_device(data.images, device, max_gb=max_gb)),
    )
    found = run_images(make_config(tmp_path / "device", **CASES["simclr"]))
    assert found.encoder.fingerprint() == expected.encoder.fingerprint()
    assert image_runs.lines_of(found) == image_runs.lines_of(expected)


def test_images_are_placed_on_a_gpu_within_the_budget_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(self_supervised, "to_device", lambda images, *place, **most: asked.append(most))
    data = make_data()
    assert self_supervised._placed(data, CPU, max_gb=4.0) is data and not asked
    with pytest.raises(TypeError, match="images"):
        # What the stand-in gives is no `Images`.
        self_supervised._placed(data, torch.device("cuda"), max_gb=3.0)
    assert asked == [{"max_gb": 3.0}]


@pytest.fixture
def mine():
    """Mines with untrained weights; gives the table and the vectors of the train images."""

    def call(folder, groups, **mining):
        config = make_config(folder, training=MINED, mining={**MINING, **mining})
        data, encoder = make_data(), build_image_encoder(config.encoder, seed=0)
        vectors = ImageVectors(data.images, encoder, precision="fp32")
        log = MetricsLog(folder / "metrics.jsonl")
        miner = ImageMiner(
            vectors, rows=TRAIN, groups=groups[TRAIN], mining=config.mining, watch=Stopwatch(), log=log
        )
        run = start_run(build_method(config, encoder), config.training, steps_per_epoch=3)
        return miner(run), vectors.of(TRAIN)

    return call


def test_negatives_are_the_nearest_other_items_after_the_very_nearest(mine, tmp_path):
    table, vectors = mine(tmp_path, item_ids())
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    assert table.queries.tolist() == TRAIN.tolist()
    items = item_ids()
    for query, found in zip(table.queries.tolist(), table.rows.tolist(), strict=True):
        nearest = sorted(TRAIN.tolist(), key=lambda row: (-round(cosines[query, row], 6), row))[:12]
        first = [row for i, row in enumerate(nearest) if items[row] not in items[nearest[:i]]]
        # Counted before any of them is left out: the query itself is the nearest.
        wanted = [row for row in first if row not in nearest[:2] and items[row] != items[query]]
        assert query in nearest[:2] and found == wanted[:4]


def test_copies_without_a_common_id_would_be_negatives(mine, tmp_path):
    table, _ = mine(tmp_path, np.arange(COUNT, dtype=np.int64), rank_min=0)
    assert table.rows[0, 0] == 1 and table.rows[1, 0] == 0


def test_near_vectors_are_no_negatives(mine, tmp_path):
    limit = 0.96
    table, vectors = mine(tmp_path, item_ids(), near_vector=limit, rank_min=0, depth=36)
    found, free = table.rows >= 0, mine(tmp_path, item_ids(), rank_min=0, depth=36)[0]
    cosines = np.take_along_axis(vectors @ vectors.T, np.maximum(table.rows, 0), axis=1)
    assert found.any() and cosines[found].max() < limit < free.scores.max()


@pytest.mark.slow
@pytest.mark.parametrize("method", [{"name": "simclr"}, {"name": "moco", "queue": 30}])
def test_mined_negatives_change_what_is_learned_and_are_of_their_round(method, tmp_path):
    plain = run_images(make_config(tmp_path / "plain", method=method, training={"rounds": 2}))
    mined = run_images(make_config(tmp_path / "mined", method=method, training=MINED, mining=MINING))
    assert [one.round for one in mined.rounds] == [1] and not plain.rounds
    losses = [[line["loss"] for line in image_runs.lines_of(run) if "loss" in line] for run in (plain, mined)]
    # Steps 2 and 3 are of round 0, which has none.
    assert losses[0][:2] == losses[1][:2] and losses[0][2:] != losses[1][2:]
    assert mined.rounds[0].counts.drawn == {"dense": 144}


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        (
            {"method": "byol", "training": MINED},
            "num_negatives is 2, but method 'byol' takes no negatives; set it to 0, or method.name to one of "
            "simclr, moco",
        ),
        ({"training": {"num_negatives": 2}}, r"num_negatives 2 has no effect.*raise training\.rounds"),
        (
            {"training": MINED, "mining": {"candidates": "train"}},
            r"mining\.candidates has no effect",
        ),
        ({"training": MINED, "mining": {"near_text": 0.5}}, r"mining\.near_text has no effect among images"),
        ({"training": MINED, "mining": {"quotas": {"lexical": 1}}}, "names 'lexical'.*valid: dense, random"),
        ({"training": {**MINED, "probe_every": 2}}, "training.probe_every has no effect among images"),
        ({"training": {**MINED, "num_negatives": 5}, "mining": MINING}, "more than mining.num_negatives 4"),
    ],
)
def test_mining_that_does_not_fit_is_refused_in_one_line_before_anything_is_done(sections, line, tmp_path):
    with pytest.raises(InputError, match=line) as caught:
        make_config(tmp_path / "run", **sections)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_images_that_look_alike_are_one_item_where_that_is_asked_for(tmp_path):
    data = make_data()
    ramps = np.linspace(0, 255, SIDE * SIDE * 3).reshape(SIDE, SIDE, 3)
    pixels = data.images.pixels.copy()
    # A train image, a near copy of it, and another one that is held out.
    pixels[10], pixels[21], pixels[40] = ramps, np.minimum(ramps + 3, 255), np.minimum(ramps + 5, 255)
    data = replace(data, images=ArrayImages(pixels))
    groups = join_near_copies(data.images, item_ids(), rows=data.splits["train"], device=CPU)
    assert groups[21] == groups[10] == 10 and groups[0] == groups[1] == 0
    assert groups[40] == 40 and len(np.unique(groups)) == COUNT - 2
    seen = []

    def spy(data, encoder, *, groups, config):
        seen.append(groups)
        return image_views(data, encoder, groups=groups, config=config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_supervised, "image_views", spy)
        for near in (False, True):
            config = make_config(
                tmp_path / str(near), source={"near_copies": near}, training={"steps": 1, "log_every": 1}
            )
            run_images(config, data=data)
    assert seen[0].tolist() == item_ids().tolist() and seen[1].tolist() == groups.tolist()


class Stop(Exception):
    """Ends the loop of a test."""


class EndBefore(Callback):
    """Stops at the step before the given one."""

    def __init__(self, step):
        self.step = step

    def on_step(self, run, loss, embeddings):
        if run.step == self.step - 1:
            raise Stop


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_step_that_nobody_watches_waits_for_nothing(name, tmp_path, monkeypatch):
    # Meta tensors have no values: whoever asks for one fails. There is no autocast for them.
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **keywords: nullcontext())
    method = CASES[name]["method"]
    training = {"optimizer": "lars", "log_every": 100, "health_every": 100}
    config = make_config(tmp_path, method=method, training=training)
    encoder = build_image_encoder(config.encoder, seed=0)
    trained = build_method(config, encoder).to("meta")
    pixels = torch.empty(COUNT, SIDE, SIDE, 3, dtype=torch.uint8, device="meta")
    data = replace(make_data(), images=DeviceImages(pixels))
    source = image_views(data, encoder, groups=item_ids(), config=config)

    def steps(last):
        run = start_run(trained, config.training, steps_per_epoch=source.steps_per_epoch)
        others = [ImageVectors(data.images, encoder, precision="fp32")]
        others.append(Progress(At({}), metric="knn_accuracy"))
        train(run, source, callbacks=[*others, Save(tmp_path / "checkpoints", others), EndBefore(last)])

    with pytest.raises(Stop):
        steps(last=7)
    # The last step is watched.
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        steps(last=9)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_gpu_is_not_waited_for_in_a_step_that_nobody_watches(name, tmp_path):
    method = CASES[name]["method"]
    training = {"log_every": 100, "health_every": 100, "steps": 12, "precision": "auto"}
    display = At(
        {
            4: lambda: torch.cuda.set_sync_debug_mode("error"),
            9: lambda: torch.cuda.set_sync_debug_mode("default"),
        }
    )
    try:
        run = run_images(make_config(tmp_path, method=method, training=training), display=display)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.steps == 12 and not display.actions and run.encoder.device.type == "cuda"


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(image_runs.work, args=(folder,), nprocs=2)
    return [torch.load(folder / f"weights-{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return image_runs.train_cases(tmp_path_factory.mktemp("one"))


def greatest_difference(found, expected):
    # The gradient of an attention's key bias is 0: what such a bias holds is rounding.
    names = [name for name, value in expected.items() if value.is_floating_point()]
    return max(
        float((found[name] - expected[name]).abs().max() / expected[name].abs().max())
        for name in names
        if not name.endswith(("key.bias", "k_proj.bias"))
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in image_runs.RANK_CASES if "of a rank" not in name])
def test_two_ranks_train_as_one_does_on_the_whole_batch(two, one, name):
    assert greatest_difference(two[0][name], one[name]) < 1e-5
    for key, value in two[0][name].items():
        assert torch.equal(value, two[1][name][key]), key


@pytest.mark.slow
def test_batch_norm_over_the_rows_of_a_rank_makes_two_ranks_differ_from_one(two, one):
    name = "simclr, norm of a rank"
    assert greatest_difference(two[0][name], one[name]) > 1e-3
    # What is saved, searched and evaluated is the same on each: running statistics are averaged.
    for key, value in two[0][name].items():
        assert torch.equal(value, two[1][name][key]), key


def test_picked_images_of_a_device_lie_there():
    picked = PickedImages(to_device(make_data().images, CPU, max_gb=1.0), TRAIN[::-1].copy())
    assert torch.equal(picked.take(np.array([0])), make_data().images.take(np.array([35])))
