"""Two processes over gloo do what one does with the whole batch."""

import os
from functools import partial
from pathlib import Path

import batch_norm_cases
import chunk_cases
import image_methods
import image_text_methods
import pytest
import rank_cases
import tiny_run
import torch
import torch.multiprocessing as mp

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.losses import info_nce
from retrieval_cl.core.ranks import (
    any_rank,
    average_gradients,
    gather_rows,
    gather_values,
    mean_over_ranks,
    num_ranks,
)
from retrieval_cl.training.callbacks import Evaluate, Remine, Save
from retrieval_cl.training.checkpoint import list_checkpoints, load_checkpoint, newest_checkpoint
from retrieval_cl.training.device import start_accelerator
from retrieval_cl.training.interrupts import Interrupted
from retrieval_cl.training.leaks import CheckLeaks
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import Monitor
from retrieval_cl.training.run import Callback
from retrieval_cl.training.steps import cached_step, plain_step
from retrieval_cl.training.trainer import train

CPU = torch.device("cpu")
CACHED = partial(cached_step, chunk_tokens=7)
OPTIONS = {
    "in batch": ({}, plain_step),
    "symmetric": ({"objective": partial(info_nce, symmetric=True)}, plain_step),
    "private negatives": ({"private_negatives": True}, plain_step),
    "only own negatives": ({"in_batch": False}, plain_step),
    "memory": ({"memory": 9}, plain_step),
    "sum of positives": ({"objective": partial(info_nce, symmetric=True, positives="sum")}, plain_step),
    "cached": ({}, CACHED),
    "cached, symmetric": ({"objective": partial(info_nce, symmetric=True)}, CACHED),
}


class Gradients(Callback):
    """Keeps the losses and the optimiser's first moments after the first step: a tenth of the gradients."""

    def __init__(self):
        self.losses, self.first = [], None

    def on_step(self, run, loss, embeddings):
        self.losses.append(float(loss))
        if run.step == 1:
            state = run.optimizer.state
            self.first = {name: state[p]["exp_avg"].clone() for name, p in run.method.named_parameters()}


def train_all(folder):
    """Trains once with each option; returns losses, first gradients and weights by option."""
    found = {}
    for number, (name, (options, take_step)) in enumerate(OPTIONS.items()):
        run, source = tiny_run.build_run(
            method=tiny_run.build_method(dropout=0.0, **options), first_mined_round=0, max_grad_norm=None
        )
        gradients = Gradients()
        log = MetricsLog(folder / f"{number}.jsonl")
        callbacks = [Monitor(log), Remine(tiny_run.mine_hardest, log), CheckLeaks(source, log), gradients]
        train(run, source, callbacks=callbacks, take_step=take_step)
        weights = {key: value.clone() for key, value in run.method.state_dict().items()}
        found[name] = {"losses": gradients.losses, "first": gradients.first, "weights": weights}
    return found


def work(rank, folder):
    with rank_cases.joined(rank, world=2, folder=folder):
        accelerator = start_accelerator()
        assert accelerator.num_processes == num_ranks() == 2
        check_gather(rank)
        check_average(rank)
        batch_norm_cases.check_batch_norm(rank, world=2)
        torch.save(train_all(folder / f"metrics-{rank}"), folder / f"rank-{rank}.pt")
        check_checkpoints(rank, folder / "run")
        check_uneven_batches(rank)
        torch.save(rank_cases.take_steps(rank, world=2), folder / f"steps-{rank}.pt")
        image_methods.check_floors(rank, world=2)
        torch.save(image_methods.train_steps(rank, world=2), folder / f"images-{rank}.pt")
        image_text_methods.check_floors(rank, world=2)
        torch.save(image_text_methods.take_steps(rank, world=2), folder / f"image-texts-{rank}.pt")
        rank_cases.check_short_memory(rank, world=2, folder=folder)
        rank_cases.check_uneven(rank)


def check_gather(rank):
    rows = (torch.arange(4.0).view(2, 2) + 10 * rank).requires_grad_()
    everyone = gather_rows(rows)
    assert everyone.tolist() == [[0, 1], [2, 3], [10, 11], [12, 13]]
    (everyone * torch.arange(8.0).view(4, 2) * (rank + 1)).sum().backward()
    # Both ranks' losses pull at each row: once with weight 1, once with weight 2.
    assert torch.equal(rows.grad, 3 * torch.arange(8.0).view(4, 2)[2 * rank : 2 * rank + 2])
    assert gather_values(torch.tensor([rank, 7])).tolist() == [0, 7, 1, 7]
    assert mean_over_ranks(torch.tensor(float(rank))) == 0.5
    assert any_rank(rank == 1, device=CPU) and not any_rank(False, device=CPU)


def check_average(rank):
    both, one, none = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    both.grad = torch.tensor([1.0, 3.0]) * (rank + 1)
    one.grad = torch.ones(2) if rank == 0 else None
    average_gradients([both, one, none])
    assert both.grad.tolist() == [1.5, 4.5]
    assert one.grad.tolist() == [0.5, 0.5]
    assert none.grad.tolist() == [0.0, 0.0]


def check_checkpoints(rank, folder):
    """Rank 1 alone is told to stop; both stop after the same step, and both go on from it."""

    class Press(Callback):
        def on_step(self, run, loss, embeddings):
            if rank == 1 and run.step == 4:
                os.kill(os.getpid(), 2)

    def callbacks():
        log = MetricsLog(folder / "metrics.jsonl")
        evaluate = Evaluate(lambda run: {"recall@10": 0.5}, log, metric="recall@10")
        others = [Monitor(log), Remine(tiny_run.mine_hardest, log), evaluate]
        return [*others, Save(folder / "checkpoints", others)]

    run, source = tiny_run.build_run()
    with pytest.raises(Interrupted, match="stopped after step 4 of 9"):
        train(run, source, callbacks=[Press(), *callbacks()])
    resumed, source = tiny_run.build_run()
    again = callbacks()
    load_checkpoint(newest_checkpoint(folder / "checkpoints"), resumed, callbacks=again)
    assert resumed.step == 4
    train(resumed, source, callbacks=again)
    whole, source = tiny_run.build_run()
    train(whole, source, callbacks=[Remine(tiny_run.mine_hardest, MetricsLog(folder / "other.jsonl"))])
    for a, b in zip(resumed.method.parameters(), whole.method.parameters(), strict=True):
        assert torch.equal(a, b)


def check_uneven_batches(rank):
    """A source that does not drop its last batch: no rank waits for rows that do not come."""
    run, source = tiny_run.build_run()

    class Ragged:
        steps_per_epoch = source.steps_per_epoch

        def batches(self, negatives, **place):
            for step, batch in enumerate(source.batches(negatives, **place)):
                short = step == 2 and rank == 1
                yield chunk_cases.slice_batch(batch, rank=0, world=2) if short else batch

    with pytest.raises(InputError, match=r"ranks bring 1 to 2 rows of view 'query'"):
        train(run, Ragged())
    assert run.step == 2


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, args=(folder,), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return train_all(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def one_step():
    return rank_cases.take_steps(0, world=1)


def results(folder: Path, rank: int):
    return torch.load(folder / f"rank-{rank}.pt", weights_only=True)


@pytest.mark.parametrize("name", OPTIONS)
def test_two_ranks_equal_one_on_the_whole_batch(two, one, name):
    found, expected = results(two, 0)[name], one[name]
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["first"], expected["first"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["weights"], expected["weights"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_ranks_hold_the_same_bits(two, name):
    first, second = (results(two, rank)[name] for rank in (0, 1))
    assert first["losses"] == second["losses"]
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key]), key


@pytest.mark.parametrize("name", rank_cases.STEPS)
@pytest.mark.parametrize("option", rank_cases.OPTIONS)
def test_gradients_of_two_ranks_are_those_of_one(two, one_step, option, name):
    expected = one_step[f"{option}, plain"]
    for rank in range(2):
        found = torch.load(two / f"steps-{rank}.pt", weights_only=True)
        chunk_cases.assert_near(found[f"{option}, {name}"], expected)


@pytest.fixture(scope="module")
def one_of_images():
    return image_methods.train_steps(0, world=1)


# BatchNorm over the rows of each rank is what two devices do, and one does not.
EXACT = sorted(image_methods.RANK_CASES.keys() - {"moco, norm of a rank"})


@pytest.mark.parametrize("name", EXACT)
def test_image_methods_train_on_two_ranks_as_on_one(two, one_of_images, name):
    for rank in range(2):
        found = torch.load(two / f"images-{rank}.pt", weights_only=True)[name]
        assert found.keys() == one_of_images[name].keys()
        for key, expected in one_of_images[name].items():
            torch.testing.assert_close(found[key], expected, rtol=1e-11, atol=1e-12, msg=f"{name}: {key}")


def test_norm_of_a_rank_alone_makes_two_ranks_differ_from_one(two, one_of_images):
    first, second = (
        torch.load(two / f"images-{rank}.pt", weights_only=True)["moco, norm of a rank"] for rank in range(2)
    )
    assert not torch.allclose(first["loss"], one_of_images["moco, norm of a rank"]["loss"], rtol=1e-3)
    for key, value in first.items():
        assert torch.equal(value, second[key]) or "running" in key, key


@pytest.fixture(scope="module")
def one_of_image_texts():
    return image_text_methods.take_steps(0, world=1)


@pytest.mark.parametrize("step", image_text_methods.STEPS)
@pytest.mark.parametrize("name", image_text_methods.RANK_CASES)
def test_clip_has_the_gradients_of_one_rank_on_two(two, one_of_image_texts, name, step):
    expected = one_of_image_texts[f"{name}, plain"]
    for rank in range(2):
        found = torch.load(two / f"image-texts-{rank}.pt", weights_only=True)[f"{name}, {step}"]
        chunk_cases.assert_near(found, expected)


def test_one_rank_writes(two):
    assert (two / "metrics-0").is_dir()
    assert not (two / "metrics-1").exists()
    assert [step for step, _ in list_checkpoints(two / "run/checkpoints")] == [6, 9]
    steps = [
        line.split(",")[0] for line in (two / "run/metrics.jsonl").read_text().splitlines() if "loss" in line
    ]
    assert steps == [f'{{"step": {step}' for step in range(1, 10)]
