import importlib
import json
import math
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
side_by_side = importlib.import_module("side_by_side")
MIB = 2**20


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs a script with --quick in this process; returns its JSON rows and what it printed."""
    threads = torch.get_num_threads()

    def call(name, *arguments):
        file = tmp_path / "rows.json"
        main = importlib.import_module(name).main
        assert not main(["--quick", "--repeats", "1", "--threads", "1", "--json", str(file), *arguments])
        return json.loads(file.read_text()), capsys.readouterr().out

    yield call
    torch.set_num_threads(threads)


def assert_rows(rows, printed):
    assert rows
    for row in rows:
        assert list(row) == ["name", "ours", "peer", "unit", "ratio"]
        assert row["name"] in printed
        assert math.isfinite(row["ours"])
        if row["peer"]:
            assert row["ratio"] > 0 or row["ours"] <= 0
    assert len({row["name"] for row in rows}) == len(rows)


def test_loss_is_timed_beside_products_and_plain_torch(run):
    rows, printed = run("loss", "--only", "rate", "--only", "plain", "--only", "options")
    assert_rows(rows, printed)
    names = [row["name"] for row in rows]
    assert names[:3] == [
        "rate beside four bare products, float32",
        "rate beside four bare products, bf16",
        "time beside plain torch, float32",
    ]
    assert "time with sigmoid beside without" in names


@pytest.mark.slow
def test_loss_is_measured_beside_every_peer(run):
    pytest.importorskip("pytorch_metric_learning", reason="pip install pytorch-metric-learning")
    rows, printed = run("loss")
    assert_rows(rows, printed)
    for word in ("MNRL", "cached MNRL", "NTXent", "memory, float32", "memory at", "time at"):
        assert any(word in row["name"] for row in rows), word


def test_push_allocates_nothing_where_a_joined_queue_does(run):
    rows, printed = run("queue_push")
    assert_rows(rows, printed)
    assert rows[0]["ours"] == 0 and rows[0]["peer"] > 64 * 8 * 4


@pytest.mark.slow
def test_cached_steps_are_measured_beside_the_plain_one(run):
    rows, printed = run("steps")
    assert_rows(rows, printed)
    assert [row["unit"] for row in rows] == ["s", "s", "MiB", "MiB"]


@pytest.mark.slow
def test_exact_search_is_measured_beside_products_faiss_and_an_int8_pass(run):
    pytest.importorskip("faiss")
    rows, printed = run("exact_search", "--only", "rate", "--only", "faiss", "--only", "int8")
    assert_rows(rows, printed)
    assert [row["unit"] for row in rows] == ["GFLOP/s", "s", "GFLOP/s", "s", "GFLOP/s", "s", "passages"]


@pytest.mark.slow
def test_mining_is_measured_beside_its_peer_and_finds_the_same_negatives(run):
    rows, printed = run("mine", "--only", "time", "--only", "negatives", "--only", "reranker")
    assert_rows(rows, printed)
    named = {row["name"]: row for row in rows}
    equal = [row["ours"] for name, row in named.items() if "negatives" in name]
    assert len(equal) == 4 and min(equal) > 99
    (calls,) = (row for name, row in named.items() if "calls" in name)
    # Of the peer: one call a query, and one for all positives.
    assert calls["peer"] == 201 and calls["ours"] == 2


@pytest.mark.slow
def test_memory_of_mining_is_measured_beside_its_peer(run):
    rows, printed = run("mine", "--only", "memory")
    assert_rows(rows, printed)
    assert [row["unit"] for row in rows] == ["MiB", "MiB"] and all(row["peer"] > 0 for row in rows)


@pytest.mark.slow
def test_step_whose_gradients_differ_is_not_timed():
    steps = importlib.import_module("steps")

    def short_step(method, batch, cast):
        found = steps.plain_step(method, batch, cast)
        next(method.parameters()).grad[0] += 1e-6
        return found

    found = steps.all_steps(((16, 0),))
    steps.refuse_other_gradients(found, steps.TINY)
    with pytest.raises(RuntimeError, match="wrong: gradients differ"):
        steps.refuse_other_gradients({**found, "wrong": short_step}, steps.TINY)


def test_gpu_script_says_in_one_line_that_there_is_no_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert importlib.import_module("gpu").main([]) == 2
    streams = capsys.readouterr()
    assert streams.err.count("\n") == 1 and "needs a CUDA device" in streams.err and not streams.out


@pytest.fixture
def cpu_as_gpu(monkeypatch):
    """Stands in for the few functions of torch.cuda that sections call; `modes` are the set sync modes."""
    modes = []
    stand_ins = {"memory_allocated": 0, "max_memory_allocated": 64 * MIB} | dict.fromkeys(
        ("synchronize", "empty_cache", "reset_peak_memory_stats")
    )
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr("gc.collect", lambda: None)
    return modes


@pytest.mark.parametrize(
    "name", ["equality", "no_wait", "large", pytest.param("dims", marks=pytest.mark.slow), "plain"]
)
def test_gpu_section_of_the_loss_runs(name, cpu_as_gpu):
    assert_section_runs(name)
    if name == "no_wait":
        assert cpu_as_gpu and cpu_as_gpu[::2] == ["error"] * (len(cpu_as_gpu) // 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["steps", "fitted", "search", "encode", "cycle", "clip"])
def test_gpu_section_of_a_step_runs(name, cpu_as_gpu):
    assert_section_runs(name)


def assert_section_runs(name):
    module, function, _ = importlib.import_module("gpu").SECTIONS[name]
    rows = getattr(importlib.import_module(module), function)(torch.device("cpu"), quick=True)
    assert rows and all(row.reached for row in rows if row.goal and row.goal.required)
    assert len({row.name for row in rows}) == len(rows)


def test_gpu_section_that_fails_is_named_with_its_reason():
    gpu = importlib.import_module("gpu")
    found = gpu.run_section("no_wait", quick=True, seconds=120)
    assert isinstance(found, str) and "Error" in found


def test_gpu_section_that_takes_too_long_is_cut_off():
    assert (
        importlib.import_module("gpu").run_section("no_wait", quick=True, seconds=0.05).startswith("not done")
    )


def test_gpu_section_without_time_left_is_named(tmp_path, monkeypatch):
    gpu = importlib.import_module("gpu")
    given = Namespace(only=["large"], seconds=1.0, quick=True, json=tmp_path / "rows.json")
    assert gpu.run_sections(given) == ([], {"large": "no time left; run it with --only large"})


def test_required_goal_that_is_missed_fails_its_section(monkeypatch):
    gpu = importlib.import_module("gpu")
    row = side_by_side.compare_amounts(
        "off", 2.0, 1.0, unit="share", goal=side_by_side.Goal(1.0, required=True)
    )
    monkeypatch.setattr(gpu, "run_section", lambda name, **_: [row])
    given = Namespace(only=["equality"], seconds=100.0, quick=False, json=None)
    assert gpu.run_sections(given) == ([row], {"equality": "missed: off"})


def test_tests_that_failed_do_not_count_as_passed(tmp_path):
    gpu_tests = importlib.import_module("gpu_tests")
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="7" failures="1" errors="1" skipped="2"/></testsuites>')
    (row,) = gpu_tests.count(report, name="tests")
    assert (row.ours, row.peer, row.reached) == (3, 5, False)


def test_contestants_turn_and_the_ratio_is_the_median_of_the_rounds(monkeypatch):
    clock, order = [0.0], []

    def step_of(name, durations):
        left = iter([0.0, *durations])

        def step():
            order.append(name)
            clock[0] += next(left)
            return name

        return step

    monkeypatch.setattr(side_by_side.time, "perf_counter", lambda: clock[0])
    contestants = {"a": step_of("a", [1.0, 10.0, 2.0]), "b": step_of("b", [2.0, 40.0, 2.0])}
    timings = side_by_side.time_in_turn(contestants, repeats=3)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert timings.values == {"a": "a", "b": "b"}
    row = timings.compare("x", "a", "b")
    assert (row.ours, row.peer, row.ratio) == (2.0, 2.0, 0.5)
    rates = timings.compare_rates("x", "a", "b", amount=8.0, unit="m/s")
    assert (rates.ours, rates.peer, rates.ratio) == (4.0, 4.0, 2.0)


def test_peak_that_is_over_at_the_end_is_seen_and_earlier_ones_are_not():
    def hold(mib):
        return lambda: torch.ones(mib * MIB // 4).sum().item()

    hold(200)()
    assert 60 <= side_by_side.peak_bytes(hold(64), warm_up=hold(1)) / MIB < 80


def test_child_is_another_process():
    assert side_by_side.in_child(os.getpid) != os.getpid()


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (None, True),
        (("ratio", "at most", 0.5), True),
        (("ratio", "at least", 0.6), False),
        (("ours", "at most", 0.9), False),
        (("ours", "at least", 1.0), True),
    ],
)
def test_goal_bounds_the_ratio_or_our_number(goal, reached):
    bound = goal and side_by_side.Goal(goal[2], goal[1], of=goal[0])
    row = side_by_side.compare_amounts("x", 1.0, 2.0, unit="s", goal=bound)
    assert row.reached == reached
    assert row.verdict.startswith({None: ""}.get(goal, "reached" if reached else "MISSED"))


def test_number_that_is_no_number_reaches_nothing():
    row = side_by_side.Row("x", math.nan, 1.0, "s", math.nan, side_by_side.Goal(1.0))
    assert not row.reached


def test_losses_that_differ_are_not_compared():
    loss = importlib.import_module("loss")
    values = {"ours": torch.tensor(1.0), "plain": torch.tensor(1.01)}
    with pytest.raises(RuntimeError, match=r"plain gives the loss 1\.01"):
        loss.refuse_other_losses(side_by_side.Timings({}, values))


def test_size_for_nt_xent_fits_the_memory_that_is_free(monkeypatch):
    loss = importlib.import_module("loss")
    monkeypatch.setattr(loss.psutil, "virtual_memory", lambda: Namespace(available=16 * 1024 * MIB))
    size = loss.largest_for_nt_xent(loss.FULL)
    assert (size.anchors, size.columns, size.dim) == (256, 2048, 256)


def test_common_options_are_parsed():
    given = side_by_side.parse(ArgumentParser(), ["--quick", "--repeats", "2"])
    assert given.quick and given.repeats == 2 and given.json is None
