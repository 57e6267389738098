"""A run with a cross-batch memory: the memory is in its checkpoints."""

import pytest
from tiny_run import build_method, build_run

from retrieval_cl.core.errors import InputError
from retrieval_cl.training.checkpoint import load_checkpoint, newest_checkpoint
from retrieval_cl.training.run import Callback
from retrieval_cl.training.trainer import train


class Kill(Callback):
    def on_step(self, run, loss, embeddings):
        if run.step == 5:
            raise KeyError("killed")


def test_killed_run_with_a_memory_goes_on_in_the_same_bits(make_callbacks, assert_equal_runs):
    whole, source = build_run(method=build_method(memory=17))
    train(whole, source, callbacks=make_callbacks("whole"))
    killed, source = build_run(method=build_method(memory=17), save_every=2)
    with pytest.raises(KeyError):
        train(killed, source, callbacks=[*make_callbacks("killed"), Kill()])
    callbacks = make_callbacks("killed")
    run, source = build_run(method=build_method(memory=17), save_every=2)
    load_checkpoint(newest_checkpoint(callbacks[-1].folder), run, callbacks=callbacks)
    assert (run.step, run.method.memory.pushed.tolist()) == (4, [3 * 4 + 1 * 12])
    train(run, source, callbacks=callbacks)
    assert_equal_runs(run, whole)


def test_memory_of_another_size_is_refused(make_callbacks):
    callbacks = make_callbacks("first")
    run, source = build_run(method=build_method(memory=17))
    train(run, source, callbacks=callbacks)
    checkpoint = newest_checkpoint(callbacks[-1].folder)
    for memory, reason in ((18, r"size mismatch for memory\.vectors"), (0, r"Unexpected key.*memory\.")):
        other, _ = build_run(method=build_method(memory=memory))
        with pytest.raises(InputError, match=f"another model.*{reason}"):
            load_checkpoint(checkpoint, other, callbacks=callbacks)
