import json

import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.training.callbacks import Evaluate, Remine, Save
from retrieval_cl.training.checkpoint import list_checkpoints
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.trainer import train


@pytest.fixture
def log(tmp_path):
    return MetricsLog(tmp_path / "metrics.jsonl")


def records(log):
    return [json.loads(line) for line in log.path.read_text().splitlines()]


def evaluated_steps(make_run, log, **settings):
    run, source = make_run(**settings)
    steps = []

    def evaluate(run):
        steps.append(run.step)
        return {"recall@10": 0.5}

    train(run, source, callbacks=[Evaluate(evaluate, log, metric="recall@10")])
    return steps


def test_evaluation_comes_at_the_start_and_at_each_rounds_end(make_run, log):
    assert evaluated_steps(make_run, log) == [0, 3, 6, 9]


def test_evaluation_comes_every_few_steps_too(make_run, log):
    assert evaluated_steps(make_run, log, eval_every=4, eval_at_start=False) == [3, 4, 6, 8, 9]


def test_evaluation_is_written_with_the_round_it_belongs_to(make_run, log):
    run, source = make_run()
    train(run, source, callbacks=[Evaluate(lambda run: {"recall@10": run.step / 9}, log, metric="recall@10")])
    assert [(line["step"], line["round"]) for line in records(log)] == [(0, 0), (3, 0), (6, 1), (9, 2)]
    assert records(log)[-1]["dev"] == run.dev == {"recall@10": 1.0}


def test_only_a_new_best_is_kept(make_run, log):
    values = iter([0.1, 0.4, 0.4, 0.2])
    kept = []
    evaluate = Evaluate(
        lambda run: {"mrr@10": next(values)},
        log,
        metric="mrr@10",
        keep_best=lambda run: kept.append(run.step),
    )
    run, source = make_run()
    train(run, source, callbacks=[evaluate])
    assert kept == [0, 3]
    assert (evaluate.best, evaluate.best_step) == (0.4, 3)


def test_metric_that_is_not_measured_is_named(make_run, log):
    run, source = make_run()
    with pytest.raises(InputError, match=r"metric 'recall@7': not measured; valid: mrr@10, recall@10"):
        train(
            run,
            source,
            callbacks=[Evaluate(lambda run: {"recall@10": 0, "mrr@10": 0}, log, metric="recall@7")],
        )


def test_mining_is_written_with_its_round_and_time(make_run, mine_hardest, log):
    run, source = make_run()
    train(run, source, callbacks=[Remine(mine_hardest, log)])
    assert [(line["step"], line["round"]) for line in records(log)] == [(3, 1), (6, 2)]
    assert all(line["mining_seconds"] > 0 for line in records(log))


@pytest.mark.parametrize(("every", "steps"), [(None, [3, 6, 9]), (2, [2, 3, 4, 6, 8, 9])])
def test_checkpoints_come_every_few_steps_and_at_each_rounds_end(make_run, tmp_path, every, steps):
    run, source = make_run(save_every=every, keep_checkpoints=10)
    train(run, source, callbacks=[Save(tmp_path, [])])
    assert [step for step, _ in list_checkpoints(tmp_path)] == steps


def test_two_callbacks_of_one_kind_each_keep_their_state(make_run, tmp_path, log):
    run, source = make_run()
    pair = [Evaluate(lambda run, x=x: {"a": x}, log, metric="a") for x in (1.0, 2.0)]
    train(run, source, callbacks=[*pair, Save(tmp_path, pair)])
    from retrieval_cl.training.checkpoint import load_checkpoint, newest_checkpoint

    fresh = [Evaluate(lambda run: {}, log, metric="a") for _ in range(2)]
    load_checkpoint(newest_checkpoint(tmp_path), make_run()[0], callbacks=fresh)
    assert [callback.best for callback in fresh] == [1.0, 2.0]
