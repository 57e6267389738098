"""`training.chunk_tokens` reaches the step that a run takes."""

import json

import pytest
import torch

from retrieval_cl.runs import to_the_end
from retrieval_cl.training import fitting


@pytest.mark.parametrize("chunk_tokens", ["40", "auto"])
def test_run_in_chunks_learns_what_the_plain_run_learns(train_tiny, monkeypatch, chunk_tokens):
    settings = ("evaluation.keep=last", "training.rounds=1", "training.precision=fp32")
    plain = train_tiny("plain", *settings)
    monkeypatch.setattr(to_the_end, "train", refuse_plain_step(to_the_end.train))
    chunked = train_tiny("chunked", *settings, f"training.chunk_tokens={chunk_tokens}")
    for (name, one), (_, other) in zip(
        plain.encoder.named_parameters(), chunked.encoder.named_parameters(), strict=True
    ):
        torch.testing.assert_close(other, one, rtol=1e-2, atol=1e-3, msg=name)


def test_size_that_fits_is_part_of_the_checkpoint(train_tiny):
    run = train_tiny("auto", "training.chunk_tokens=auto", "training.rounds=1")
    checkpoint = sorted((run.metrics.parent / "checkpoints").iterdir())[-1]
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert manifest["callbacks"]["FittedStep/0"] == {"chunk_tokens": fitting.WHOLE}


def refuse_plain_step(train):
    def checked(run, source, *, callbacks, take_step):
        assert take_step is not fitting.plain_step
        return train(run, source, callbacks=callbacks, take_step=take_step)

    return checked
