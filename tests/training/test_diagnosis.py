"""The table of faults as facts, and a few faults injected into tiny runs."""

import json
import math
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from image_methods import ImageSource, build_byol, build_moco, build_simclr

from retrieval_cl.core.health import measure_health
from retrieval_cl.training import diagnosis
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.diagnosis import MEMORY, RULES, diagnose
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import Collapse, Monitor
from retrieval_cl.training.signals import Signals
from retrieval_cl.training.trainer import start_run, train
from retrieval_cl.training.watch import Watch, pair_order

SOUND = Signals(
    step=200,
    warmup=20,
    lr=0.002,
    rows=128,
    dim=64,
    loss=3.0,
    chance=5.5,
    std_ratio=0.97,
    effective_rank=30.0,
    alignment=0.4,
    uniformity=-3.0,
    pair_order=0.97,
    positive_score=0.8,
    negative_score=0.0,
    entropy=4.3,
    temperature=0.2,
    gradients={"encoder": 0.8, "projector": 0.5},
    step_size=0.004,
    growth=1.1,
    batch_norm=97.0,
)
MOCO = replace(SOUND, ema_gap=0.1, queue_fill=1.0, queue_age=3.5)
BYOL = replace(
    SOUND,
    loss=0.3,
    chance=0.0,
    entropy=0.0,
    temperature=None,
    ema_gap=0.05,
    gradients={"encoder": 0.4, "projector": 0.2, "predictor": 0.1},
)
FALLEN = {"std_ratio": 0.03, "positive_score": 0.999, "loss": 0.001}
FAULTS = {
    "frozen batch norm": [replace(SOUND, batch_norm=4.0)] * 3,
    "EMA momentum 0": [replace(MOCO, ema_gap=0.0)] * 2,
    "temperature too low": [replace(SOUND, temperature=1e-3, entropy=0.3)] * 3,
    "learning rate too high": [replace(SOUND, growth=20.0, step_size=0.04)] * 2,
    "pairs do not match": [replace(SOUND, pair_order=0.51, loss=5.9)] * 3,
    "no predictor": [replace(BYOL, **FALLEN, gradients={"encoder": 0.1, "projector": 0.1})] * 3,
    "no stop-gradient": [replace(BYOL, **FALLEN)] * 3,
    "no negatives": [replace(BYOL, **FALLEN, ema_gap=None)] * 3,
    "collapse": [replace(SOUND, std_ratio=0.02)] * 3,
}


def looks(history, *, every=50):
    """The same looks at rising steps, with running statistics that move unless a case holds them still."""
    still = history[0].batch_norm == 4.0
    return [
        replace(one, step=(place + 1) * every, batch_norm=4.0 if still else 90.0 + place)
        for place, one in enumerate(history)
    ]


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_name(name):
    fault = diagnose(looks(FAULTS[name]))
    assert fault is not None and fault.name == name


def test_every_row_of_the_table_is_tested():
    assert [rule.name for rule in RULES] == list(FAULTS)
    assert max(rule.looks for rule in RULES) < MEMORY


@pytest.mark.parametrize("name", FAULTS)
def test_one_look_too_few_is_no_fault(name):
    assert diagnose(looks(FAULTS[name])[1:]) is None


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("place", [0, 1])
def test_one_sound_look_in_between_is_no_fault(name, place):
    history = looks(FAULTS[name])
    sound = replace(SOUND, step=history[place].step, batch_norm=77.0)
    assert diagnose([*history[:place], sound, *history[place + 1 :]][-len(history) :]) is None


@pytest.mark.parametrize("sound", [SOUND, MOCO, BYOL], ids=["simclr", "moco", "byol"])
def test_sound_runs_have_no_fault(sound):
    history = looks([sound] * 4)
    assert [diagnose(history[: place + 1]) for place in range(4)] == [None] * 4


def test_no_look_is_no_fault():
    assert diagnose([]) is None


@pytest.mark.parametrize("name", FAULTS)
def test_line_says_step_numbers_and_setting(name):
    line = str(diagnose(looks(FAULTS[name])))
    step, rule = 50 * len(FAULTS[name]), next(rule for rule in RULES if rule.name == name)
    assert line.startswith(f"{name} at step {step}: in {rule.looks} looks in a row ")
    assert "\n" not in line and "unknown" not in line
    assert "method." in line or "training." in line


@pytest.mark.parametrize("missing", [None, math.nan])
def test_what_was_not_measured_is_no_sign(missing):
    fixed = {"step", "warmup", "lr", "rows", "dim", "gradients"}
    nothing = {name: missing for name in asdict(SOUND) if name not in fixed}
    assert diagnose(looks([replace(SOUND, **nothing, gradients=None)] * 3)) is None


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("collapse", {"rows": diagnosis.MIN_ROWS - 1}),
        ("pairs do not match", {"rows": diagnosis.MIN_PAIR_ROWS - 1}),
        ("pairs do not match", {"warmup": 10_000}),
        ("learning rate too high", {"step": 10**6}),
        ("learning rate too high", {"loss": 0.1}),
        ("EMA momentum 0", {"queue_fill": None}),
        ("frozen batch norm", {"batch_norm": None}),
        ("temperature too low", {"temperature": 0.05}),
    ],
)
def test_signs_that_prove_nothing(name, changed):
    """Few rows; pairs while the rate still rises; weights that had time to grow; a twin without a queue."""
    step = {"step"} & changed.keys()
    history = [
        replace(one, **{key: value for key, value in changed.items() if key != "step"})
        for one in looks(FAULTS[name])
    ]
    if step:
        history = [replace(one, step=changed["step"] + place) for place, one in enumerate(history)]
    assert diagnose(history) is None


def test_effective_rank_of_one_is_a_collapse():
    assert diagnose(looks([replace(SOUND, effective_rank=1.1)] * 3)).name == "collapse"


def test_vectors_without_negatives_that_fall_look_by_look_are_noticed_before_they_meet():
    history = [replace(BYOL, ema_gap=None, std_ratio=ratio, positive_score=0.9) for ratio in (0.7, 0.55, 0.5)]
    assert diagnose(looks(history)) is None
    further = replace(history[-1], std_ratio=0.46)
    assert diagnose(looks([*history, further])).name == "no negatives"


def test_watch_remembers_all_that_a_fall_needs():
    history = [
        replace(BYOL, ema_gap=None, std_ratio=ratio, positive_score=0.9) for ratio in (0.7, 0.55, 0.5, 0.46)
    ]
    assert diagnose(looks(history)[-MEMORY:]) is not None


def test_vectors_without_negatives_that_rise_are_sound():
    history = [replace(BYOL, std_ratio=ratio, positive_score=0.9) for ratio in (0.3, 0.4, 0.5, 0.55)]
    assert diagnose(looks(history)) is None


def test_low_entropy_of_a_task_that_is_learned_is_no_fault():
    """Probabilities near 0 and 1 that are right: loss and entropy fall together."""
    assert diagnose(looks([replace(SOUND, loss=0.01, entropy=0.02, temperature=0.01)] * 3)) is None


def test_pair_order_equals_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    anchors, positives = torch.randn(2, 9, 4, generator=generator)
    positives[3] = positives[5]
    rows = torch.nn.functional.normalize(anchors, dim=1), torch.nn.functional.normalize(positives, dim=1)
    won = 0.0
    for i in range(9):
        for j in range(9):
            if i != j:
                own, other = float(rows[0][i] @ rows[1][i]), float(rows[0][i] @ rows[1][j])
                won += 0.5 if own == other else float(other < own)
    assert float(pair_order(anchors, positives)) == pytest.approx(won / 72, abs=1e-6)


def test_pair_order_of_equal_rows_is_a_half_and_of_copies_one():
    rows = torch.eye(6)
    assert float(pair_order(torch.ones(6, 4), torch.ones(6, 4))) == 0.5
    assert float(pair_order(rows, rows)) == 1.0


def begin(method, **settings):
    defaults = {
        "batch_size": 8,
        "num_negatives": 0,
        "rounds": 1,
        "steps": 12,
        "lr": 0.01,
        "precision": "fp32",
    }
    config = TrainingConfig(**defaults | {"health_every": 2} | settings)
    source = ImageSource()
    return start_run(method, config, steps_per_epoch=source.steps_per_epoch), source


def stops(method, tmp_path, **settings):
    run, source = begin(method, **settings)
    with pytest.raises(Collapse) as stop:
        train(run, source, callbacks=[Monitor(MetricsLog(tmp_path / "metrics.jsonl"))])
    return str(stop.value)


def test_moco_without_a_slow_twin_is_stopped(tmp_path):
    line = stops(build_moco(queue=20, momentum=0.0), tmp_path)
    assert line.startswith("EMA momentum 0 at step 4: ") and "raise method.momentum" in line


def test_batch_norm_that_stands_still_is_stopped(tmp_path):
    method = build_simclr(norm=True)
    for module in method.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()
            module.train = lambda mode=True: None
    assert stops(method, tmp_path).startswith("frozen batch norm at step 6: ")


def test_temperature_near_zero_is_stopped(tmp_path):
    line = stops(build_simclr(temperature=1e-4), tmp_path)
    assert line.startswith("temperature too low at step 6: ")


def test_rate_a_thousand_times_too_high_is_stopped(tmp_path):
    assert stops(build_simclr(), tmp_path, lr=10.0).startswith("learning rate too high at step 4: ")


def test_signals_stand_in_the_metrics(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    run, source = begin(build_moco(queue=20), steps=4)
    train(run, source, callbacks=[Monitor(log)])
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    found = next(line["signals"] for line in lines if "signals" in line)
    assert {"pair_order", "step_size", "growth", "ema_gap", "queue_fill", "queue_age"} <= set(found)
    assert found["grad_norm_encoder"] > 0 and found["grad_norm_projector"] > 0
    assert 0 < found["ema_gap"] < 1 and found["queue_fill"] <= 1


def test_hooks_leave_the_weights_alone_and_the_optimizer_as_it_was(tmp_path):
    watched, source = begin(build_byol(norm=True))
    bare, _ = begin(build_byol(norm=True))
    train(watched, source, callbacks=[Monitor(MetricsLog(tmp_path / "metrics.jsonl"))])
    train(bare, source)
    for (name, one), (_, other) in zip(
        watched.method.state_dict().items(), bare.method.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
    assert not watched.optimizer._optimizer_step_pre_hooks
    assert not watched.optimizer._optimizer_step_post_hooks


def test_looks_are_the_same_after_a_resume():
    run, _ = begin(build_moco(queue=20))
    watch, resumed = Watch(), Watch()
    rows = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    look = partial(
        Watch.look, run=run, health=measure_health(*rows), loss=1.0, anchors=rows[0], positives=rows[1]
    )
    watch.start(run)
    run.step = 2
    look(watch)
    resumed.load_state(json.loads(json.dumps(watch.state(), allow_nan=False)))
    resumed.start(run)
    run.step = 4
    look(watch)
    look(resumed)
    assert watch.state() == resumed.state()
    watch.stop()
    resumed.stop()


def test_values_that_are_no_numbers_can_be_saved():
    run, _ = begin(build_moco(queue=20))
    watch = Watch()
    rows = torch.full((8, 4), math.nan)
    health = replace(measure_health(torch.ones(8, 4), torch.ones(8, 4)), std_ratio=math.nan)
    watch.start(run)
    run.step = 2
    watch.look(run, health, loss=math.nan, anchors=rows, positives=rows)
    watch.stop()
    json.dumps(watch.state(), allow_nan=False)
