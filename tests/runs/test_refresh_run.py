"""A run with a partial refresh: it tells what that loses, and resumes in the same bits."""

import dataclasses
import json

import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.runs import to_the_end
from retrieval_cl.sources.records import Qrels
from retrieval_cl.training.steps import plain_step

PART = ("training.refresh=candidates", "training.probe_passages=24", "training.precision=fp32")


def refreshes(run):
    """Step -> what was embedded anew, and lost."""
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return {line["step"]: line["refresh"] for line in lines if "refresh" in line}


def test_run_tells_the_loss_and_resumes_in_the_same_bits(train_tiny, tiny_data, monkeypatch, tmp_path):
    settings = (
        *PART,
        "training.steps=12",
        "training.remine_every=3",
        "training.eval_at_start=false",
        "evaluation.keep=last",
        "mining.depth=2",
    )
    # Two candidates for each of twenty queries: they are not all of the 48 passages.
    train = tiny_data.splits["train"]
    few = Qrels(train.queries[:20], train.passages[:20], train.grades[:20])
    data = dataclasses.replace(tiny_data, splits={"train": few})
    whole = train_tiny("whole", *settings, data=data)
    found = refreshes(whole)
    assert found.keys() == {6, 9} and found[6]["encoded"] == 48
    assert found[9]["encoded"] < 48 and 0 <= found[9]["lost_overlap"] < 1
    assert "lost against embedding all" in whole.rounds[-1].further
    # The checkpoints of steps 9 and 12 are left; the former comes before the mining of its step.
    kept = sorted(path.name for path in (tmp_path / "whole/checkpoints/passage_vectors").iterdir())
    assert kept == ["step-00000006.npy", "step-00000009.npy"]

    class Killed(BaseException):
        pass

    taken = []

    def take_step(*arguments):
        taken.append(arguments)
        if len(taken) == 11:
            raise Killed
        return plain_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(to_the_end, "choose_step", lambda config, log: (take_step, ()))
        with pytest.raises(Killed):
            train_tiny("killed", *settings, data=data)
    resumed = train_tiny("killed", *settings, data=data, resume=True)
    assert resumed.encoder.fingerprint() == whole.encoder.fingerprint()
    assert refreshes(resumed) == found
    (tmp_path / "killed/checkpoints/passage_vectors/step-00000009.npy").unlink()
    with pytest.raises(InputError, match=r"step-00000009.npy: no such file; the checkpoint of step 12"):
        train_tiny("killed", *settings, data=data, resume=True)
