import copy
import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_run import DropoutTower, build_method, build_run, build_source, mine_hardest

from retrieval_cl.core import floors
from retrieval_cl.core.contrast import Bank
from retrieval_cl.core.distillation import margin_mse
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import info_nce, sigmoid
from retrieval_cl.core.matryoshka import matryoshka
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.temperature import Bias, Temperature
from retrieval_cl.core.views import Batch, View
from retrieval_cl.methods import parts
from retrieval_cl.methods.dual_encoder import DualEncoder
from retrieval_cl.methods.method import Method
from retrieval_cl.training import leaks
from retrieval_cl.training.callbacks import Remine
from retrieval_cl.training.leaks import CheckLeaks, check_leaks
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.trainer import train


def make_batch(first=10, *, negatives=True):
    """Anchors 1 and 3 share a positive, anchor 2 has two; the negatives hold positives and padding."""
    known = torch.tensor([[0, -1], [1, -1], [2, 7], [1, -1]])
    negative = torch.tensor([3, 4, 5, 1, 7, 6, 0, -1])
    nothing = Ragged.from_lists([])
    views = {
        "query": View(nothing, torch.arange(4)),
        "positive": View(nothing, torch.tensor([0, 1, 2, 1]) + first),
        "negative": View(nothing, torch.where(negative < 0, -1, negative + first)),
    }
    if not negatives:
        del views["negative"]
    return Batch(views, torch.where(known < 0, -1, known + first))


BATCHES = [make_batch(), make_batch(13)]


def make(*, temperature=0.05, learned=False, **options):
    return DualEncoder(DropoutTower(dropout=0.0), Temperature(temperature, learned=learned), **options)


class Tampered(Method):
    """A dual encoder whose contrasts are changed on their way out."""

    views, embeddings = DualEncoder.views, DualEncoder.embeddings

    def __init__(self, inner, tamper):
        super().__init__()
        self.inner, self.objective, self.tamper = inner, inner.objective, tamper

    @classmethod
    def build(cls, config, encoder):
        raise NotImplementedError

    def embed(self, batch):
        return self.inner.embed(batch)

    def contrasts(self, embeddings, batch):
        return tuple(
            self.tamper(self.inner, one, embeddings) for one in self.inner.contrasts(embeddings, batch)
        )

    def after_step(self, embeddings, batch, progress):
        self.inner.after_step(embeddings, batch, progress)


def with_ids(contrast, name, change):
    parts = [
        replace(part, ids=change(part.ids)) if part.name == name else part for part in contrast.bank.parts
    ]
    return replace(contrast, bank=Bank(tuple(parts)))


def fresh(ids):
    return torch.arange(1000, 1000 + len(ids), device=ids.device)


def refused(inner, tamper, *, batches=BATCHES):
    check_leaks(inner, batches)
    with pytest.raises(InputError) as found:
        check_leaks(Tampered(inner, tamper), batches)
    assert "\n" not in str(found.value)
    return str(found.value)


HEALTHY = {
    "plain": {},
    "symmetric": {"objective": partial(info_nce, symmetric=True)},
    "private negatives": {"private_negatives": True},
    "only own negatives": {"in_batch": False},
    "memory": {"memory": 100},
    "memory smaller than a batch": {"memory": 5},
    "memory that starts late": {"memory": 100, "memory_start": 0.9},
    "memory and private negatives": {"memory": 30, "private_negatives": True},
    "memory, symmetric": {"memory": 30, "objective": partial(info_nce, symmetric=True)},
    "learned temperature": {"learned": True},
    "cold": {"temperature": 0.001, "memory": 30},
    "warm": {"temperature": 5.0, "memory": 30},
    "bf16": {"objective": partial(info_nce, compute_dtype=torch.bfloat16), "memory": 30},
    "guard": {"objective": partial(info_nce, guard=Guard(fraction=0.95)), "memory": 30},
    "matryoshka": {"objective": matryoshka(info_nce, dims=[2, 6]), "memory": 30},
    "sigmoid": {"objective": sigmoid, "bias": Bias(-4.0), "memory": 30},
    "sigmoid, all positives": {"objective": partial(sigmoid, positives="sum"), "memory": 30},
    "all positives": {"objective": partial(info_nce, positives="mean", debias=0.1), "memory": 30},
    "sum of positives": {
        "objective": partial(info_nce, positives="sum", symmetric=True, hardness=1.0),
        "memory": 30,
    },
    "decoupled": {"objective": partial(info_nce, decoupled=True, symmetric=True), "memory": 30},
}


def check_on(device, options):
    """The configuration passes, and is refused where mined negatives have other ids than their rows."""
    method = make(**copy.deepcopy(options)).to(device)
    assert check_leaks(method, BATCHES)
    with pytest.raises(InputError, match="part 'negatives'"):
        check_leaks(Tampered(method, lambda inner, c, embeddings: with_ids(c, "negatives", fresh)), BATCHES)


@pytest.mark.parametrize("options", HEALTHY.values(), ids=HEALTHY)
def test_configuration_passes_and_its_leak_is_seen(options):
    check_on("cpu", options)


@pytest.mark.gpu
@pytest.mark.parametrize("options", HEALTHY.values(), ids=HEALTHY)
def test_configuration_passes_and_its_leak_is_seen_on_a_gpu(options):
    check_on("cuda", options)


def test_one_batch_and_batches_without_mined_negatives_pass():
    assert check_leaks(make(memory=30), BATCHES[:1])
    plain = [make_batch(negatives=False), make_batch(13, negatives=False)]
    assert check_leaks(make(memory=30, objective=partial(info_nce, symmetric=True)), plain)


@pytest.mark.parametrize(("temperature", "symmetric"), [(0.02, False), (0.05, True), (1.0, False)])
def test_memory_that_ignores_ids_is_named(temperature, symmetric):
    inner = make(memory=50, temperature=temperature, objective=partial(info_nce, symmetric=symmetric))
    message = refused(inner, lambda inner, c, embeddings: with_ids(c, "memory", fresh))
    assert "part 'memory' (12 rows) leaks for 4 anchor(s): their own positive" in message
    assert "part 'positives'" not in message and "part 'negatives'" not in message
    assert "with this batch in the queue, 4 of 4 anchors are off the floor" in message


def test_current_keys_in_the_queue_before_the_loss_are_named():
    """As in stable-pretraining's mocov2: the queue holds this step's keys already, and knows no ids."""

    def push_first(inner, contrast, embeddings):
        inner.memory.push(embeddings["positive"], fresh(embeddings["positive"]))
        parts = [part for part in contrast.bank.parts if part.name != "memory"]
        return replace(contrast, bank=Bank((*parts, inner.memory.part(name="memory"))))

    message = refused(make(memory=50), push_first)
    assert "part 'memory' (4 rows) leaks for 4 anchor(s)" in message and "before any step" in message


def test_current_keys_with_their_ids_do_not_leak():
    def push_first(inner, contrast, embeddings):
        ids = contrast.bank.parts[0].ids
        inner.memory.push(embeddings["positive"], ids)
        parts = [part for part in contrast.bank.parts if part.name != "memory"]
        return replace(contrast, bank=Bank((*parts, inner.memory.part(name="memory"))))

    assert check_leaks(Tampered(make(memory=50), push_first), BATCHES)


def test_twin_of_a_positive_under_another_id_is_named():
    def one_twin(ids):
        return torch.where(torch.arange(len(ids)) == 2, 999, ids)

    message = refused(make(memory=50), lambda inner, c, embeddings: with_ids(c, "memory", one_twin))
    assert "part 'memory' (12 rows) leaks for 1 anchor(s)" in message


def test_scale_that_does_not_reach_the_contrast_is_named():
    message = refused(make(), lambda inner, c, embeddings: replace(c, scale=torch.ones_like(c.scale)))
    assert "the temperature leaks: logits are scaled by 1, not by 20" in message


def test_bias_that_does_not_reach_the_contrast_is_named():
    inner = make(objective=sigmoid, bias=Bias(-4.0))
    message = refused(inner, lambda inner, c, embeddings: replace(c, bias=None))
    assert "the bias leaks: 0 is added to the logits, not -4" in message


def test_objective_that_ignores_the_scale_is_named(monkeypatch):
    def unscaled(contrast):
        return info_nce(replace(contrast, scale=torch.ones_like(contrast.scale)))

    monkeypatch.setattr(floors, "FLOORS", {unscaled: floors.info_nce_floor})
    with pytest.raises(InputError, match=r"objective 'unscaled' leaks: .*loss 0.5514, expected 4.122e-09 at"):
        check_leaks(make(objective=unscaled), BATCHES)


@pytest.mark.parametrize("name", ["gather_rows", "gather_values"])
def test_gather_that_mixes_rows_is_named(monkeypatch, name):
    check_leaks(make(), BATCHES)
    monkeypatch.setattr(parts, name, lambda rows: rows.roll(1, 0))
    with pytest.raises(InputError, match=r"part 'positives'.* leaks"):
        check_leaks(make(), BATCHES)


def test_gather_that_mixes_vectors_alone_is_seen_at_the_target(monkeypatch):
    monkeypatch.setattr(parts, "gather_rows", lambda rows: rows.roll(1, 0))
    with pytest.raises(InputError, match=r"target column of 4 anchor\(s\) holds another item's row"):
        check_leaks(make(), BATCHES)


def test_mined_negative_that_is_a_positive_under_a_stale_id_is_named():
    def stale(ids):
        return torch.where(ids == 11, 777, ids)

    message = refused(make(), lambda inner, c, embeddings: with_ids(c, "negatives", stale))
    assert "part 'negatives' (8 rows) leaks for 2 anchor(s): their own positive" in message
    private = make(private_negatives=True)
    message = refused(private, lambda inner, c, embeddings: with_ids(c, "negatives", stale))
    assert "part 'negatives' (8 rows) leaks for 1 anchor(s)" in message


def test_padding_that_is_a_candidate_is_named():
    def unpadded(ids):
        return torch.where(ids == -1, 777, ids)

    message = refused(make(), lambda inner, c, embeddings: with_ids(c, "negatives", unpadded))
    assert "part 'negatives' (8 rows) leaks for 4 anchor(s)" in message


@pytest.mark.parametrize("temperature", [0.02, 0.05, 1.0])
def test_one_known_id_that_is_not_heeded_is_seen_at_any_temperature(temperature):
    """The other item that anchor 2 matches has cosine 0: only the count of negatives tells."""
    inner = make(temperature=temperature)
    message = refused(inner, lambda inner, c, embeddings: replace(c, known=c.known[:, :1]))
    assert "part 'negatives' (8 rows) leaks for 1 anchor(s)" in message


def test_negatives_left_out_are_named():
    def half(ids):
        return torch.where(torch.arange(len(ids)) % 2 == 0, ids, -1)

    message = refused(make(), lambda inner, c, embeddings: with_ids(c, "negatives", half))
    assert "part 'negatives' (8 rows) leaks for 4 anchor(s): some of their negatives are left out" in message


def test_anchors_in_another_order_are_named():
    message = refused(make(), lambda inner, c, embeddings: replace(c, anchors=c.anchors.roll(1, 0)))
    assert "the anchors leak: 4 are not the rows of the batch" in message


def test_nothing_of_the_method_changes():
    method = make(memory=20, learned=True)
    method.memory.push(torch.randn(3, 6), torch.arange(3))
    with torch.no_grad():
        method.temperature.log_scale.fill_(4.0)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    check_leaks(method, BATCHES)
    assert method.memory.filled == 3 and method.temperature.log_scale.requires_grad
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]) and value.device.type == "cpu", name


def test_towers_are_not_copied(monkeypatch):
    method, copies = make(), []
    copy = leaks._scratch_copy

    def remember(*arguments, **options):
        copies.append(copy(*arguments, **options))
        return copies[0]

    monkeypatch.setattr(leaks, "_scratch_copy", remember)
    check_leaks(method, BATCHES)
    assert copies[0].encoder.words.weight.is_meta and not method.encoder.words.weight.is_meta
    assert copies[0].temperature is not method.temperature


def test_objective_without_a_floor_is_said_to_be_unchecked(tmp_path):
    assert not check_leaks(make(objective=margin_mse), BATCHES)
    run, source = build_run(method=build_method(objective=margin_mse))
    log = MetricsLog(tmp_path / "metrics.jsonl")
    CheckLeaks(source, log).on_round(run)
    assert json.loads(log.path.read_text())["leaks"] == "not checked: the objective has no known floor"


def test_large_batches_are_cut_to_their_first_anchors(monkeypatch):
    monkeypatch.setattr(leaks, "MAX_ANCHORS", 3)
    message = refused(make(), lambda inner, c, embeddings: replace(c, anchors=c.anchors.roll(1, 0)))
    assert "3 of 3 anchors" in message


def train_checked(folder, *, method=None):
    run, source = build_run(method=method)
    log = MetricsLog(folder / "metrics.jsonl")
    train(run, source, callbacks=[Remine(mine_hardest, log), CheckLeaks(source, log)])
    return run, log


def test_each_round_is_checked_and_its_bits_stay_the_same(tmp_path, assert_equal_runs):
    run, log = train_checked(tmp_path / "checked", method=build_method(memory=7))
    plain, source = build_run(method=build_method(memory=7))
    train(plain, source, callbacks=[Remine(mine_hardest, MetricsLog(tmp_path / "plain.jsonl"))])
    assert_equal_runs(run, plain)
    assert torch.equal(run.method.memory.ids, plain.method.memory.ids)
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    checked = [line for line in lines if "leaks" in line]
    assert [(line["step"], line["round"], line["leaks"]) for line in checked] == [
        (0, 0, "none"),
        (3, 1, "none"),
        (6, 2, "none"),
    ]
    assert all(0 < line["leak_check_seconds"] < 5 for line in checked)


def test_training_does_not_start_where_something_leaks(tmp_path):
    def unscaled(inner, contrast, embeddings):
        return replace(contrast, scale=torch.ones_like(contrast.scale))

    run, source = build_run(method=Tampered(build_method(), unscaled))
    with pytest.raises(InputError, match="method Tampered: the temperature leaks"):
        train(run, source, callbacks=[CheckLeaks(source, MetricsLog(tmp_path / "metrics.jsonl"))])
    assert run.step == 0


def test_leak_of_mined_negatives_stops_the_first_mined_round(tmp_path):
    def stale(inner, contrast, embeddings):
        return with_ids(contrast, "negatives", fresh)

    run, source = build_run(method=Tampered(build_method(), stale))
    table = mine_hardest(build_run()[0])
    log = MetricsLog(tmp_path / "metrics.jsonl")
    mine = Remine(lambda run: replace(table, round=run.round), log)
    with pytest.raises(InputError, match="part 'negatives'"):
        train(run, source, callbacks=[mine, CheckLeaks(source, log)])
    assert run.step == 3


def test_batches_of_the_source_pass():
    source = build_source()
    run, _ = build_run()
    run.negatives = mine_hardest(run)
    batches = source.batches(run.negatives, seed=0, round=0, num_steps=6)
    assert check_leaks(build_method(memory=9), [next(batches), next(batches)])
