"""The command `demo`: small stories that run in minutes and leave a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from retrieval_cl.console import say, tell, training_stops, typed_command
from retrieval_cl.options import Output

demo = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Small stories, each with a page.")


@demo.callback()
def stories() -> None:
    """Small stories that need no data of yours: each takes a minute or two and leaves a page."""


@demo.command()
def collapse(
    output: Output = None,
    steps: Annotated[int, typer.Option(min=30, help="Of each of the four trainings.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and views.")] = 0,
) -> None:
    """How vectors collapse where positives are all there is, and how SimCLR, MoCo and BYOL avoid it.

    Trains four small encoders on handwritten digits, without labels; leaves report.html with pictures.

    Examples:
    * `retrieval-cl demo collapse`
    * `retrieval-cl demo collapse --steps 400 --seed 1 --output runs/collapse`
    """
    from retrieval_cl.runs.demo_collapse import demo_collapse

    with training_stops():
        done = demo_collapse(
            output=output or Path("runs/demo-collapse"),
            steps=steps,
            seed=seed,
            command=typed_command(sys.argv[1:]),
            say=say,
        )
    tell(done.text())
    tell(f"\n{done.seconds:.0f} s; report: {done.folder / 'report.html'}")
