"""The loop: rounds of steps, in plain sight. It knows no method and no kind of data."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from retrieval_cl.core.ranks import average_gradients, num_ranks, rank, refuse_uneven
from retrieval_cl.encoders.batch_norm import average_statistics
from retrieval_cl.methods.method import Method
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.device import cast_to, resolve_precision, wait_for
from retrieval_cl.training.interrupts import Interrupted, Interrupts
from retrieval_cl.training.optim import build_optimizer, set_rate
from retrieval_cl.training.run import Callback, Run, Source, plan_rounds
from retrieval_cl.training.seeds import seed_step
from retrieval_cl.training.steps import TakeStep, limit_gradients, plain_step


def start_run(method: Method, config: TrainingConfig, *, steps_per_epoch: int) -> Run:
    """A run at step 0. The method must lie on its device already."""
    return Run(
        method=method,
        optimizer=build_optimizer(method, config),
        config=config,
        round_steps=plan_rounds(config, steps_per_epoch=steps_per_epoch),
    )


def train(
    run: Run, source: Source, *, callbacks: Sequence[Callback] = (), take_step: TakeStep = plain_step
) -> None:
    """Trains from where the run stands to its last step; callbacks are called in their order.

    Raises:
        InputError: the ranks' batches are uneven.
        Interrupted: Ctrl-C or SIGTERM came; it names the checkpoint that was kept.
        KeyboardInterrupt: it came twice, within one step; the last checkpoint on disk stands.
    """
    run.method.train()
    try:
        with Interrupts() as interrupts:
            _take_steps(run, source, callbacks=callbacks, take_step=take_step, interrupts=interrupts)
    except KeyboardInterrupt:
        if interrupts.mid_step:
            raise
        average_statistics(run.method)
        kept = [callback.on_interrupt(run) for callback in callbacks]
        raise Interrupted(run.step, run.steps, next(filter(None, kept), None)) from None
    finally:
        for callback in callbacks:
            callback.on_stop(run)


def _take_steps(
    run: Run, source: Source, *, callbacks: Sequence[Callback], take_step: TakeStep, interrupts: Interrupts
) -> None:
    method, config = run.method, run.config
    cast = cast_to(resolve_precision(config.precision, run.device), run.device)
    while run.step < run.steps:
        for callback in callbacks:
            callback.on_round(run)
        number, started = run.round, perf_counter()
        for batch in source.batches(
            run.negatives,
            seed=config.seed,
            round=run.round,
            num_steps=run.round_steps[run.round],
            start_step=run.cursor,
            rank=rank(),
            world=num_ranks(),
            steps_before=run.steps_before,
        ):
            with interrupts.held(run.device):
                refuse_uneven(batch.count_rows(method.views), device=run.device)
                seed_step(config.seed, rank=rank(), step=run.step)
                loss, embeddings = take_step(method, batch, cast)
                average_gradients(method.parameters())
                run.grad_norm = limit_gradients(method, config.max_grad_norm)
                set_rate(run.optimizer, config, step=run.step, steps=run.steps)
                run.optimizer.step()
                run.optimizer.zero_grad()
                run.statistics = method.describe(embeddings, batch) if run.logs_next else None
                method.after_step(embeddings, batch, run.progress)
                if run.watches_next:
                    # What looks at the model, or saves it, is to find the same one on every rank.
                    average_statistics(method)
                    wait_for(run.device)
                run.advance(perf_counter() - started)
                for callback in callbacks:
                    callback.on_step(run, loss, embeddings)
            # A callback may have ended the round before the source does.
            if run.cursor == 0:
                break
            started = perf_counter()
        assert run.round > number or run.step == run.steps, "the source ended before the round did"
