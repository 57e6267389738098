"""Every check and measurement that needs a GPU, in sections that fit ten minutes together.

    PYTHONPATH=. python3 benchmarks/gpu.py [--only large --only dims ...] [--seconds 540] [--json FILE]

| section | what |
|---|---|
| equality | losses and gradients of all objectives, every engine on the GPU beside float64 on the CPU |
| no_wait | forward, backward and queue push where torch raises if the host waits for the GPU |
| large | 65,536 x 524,288 x 768 in bf16: memory, share of the rate of four bf16 products |
| dims | D = 256 and 384: both kernel engines, torch tiles, plain torch and the products |
| plain | beside plain torch at the largest size that fits it, D = 768 |
| steps | cached beside plain step of a BERT-base in bf16: pairs per second, memory, largest batch |
| fitted | the cached step that finds its chunks' size by running out of memory |
| search | exact search of 100,000 x 1,000,000 x 768 beside torch's matmul and topk, and faiss' knn_gpu |
| encode | tokens a second beside SentenceTransformer.encode, float32 and bf16, random BERT-base |
| cycle | encode, search, mine and swap in a running training, in one line |
| images | SimCLR of a ResNet-18 at 32x32: images a second, the share of each part of a step |
| images_wait | SimCLR, MoCo, BYOL: torch raises where the host waits in a step that nobody watches |
| images_run | 60 epochs on CIFAR-10 with their accuracies; for longer runs see gpu_image_run.py |
| clip | CLIP of a ViT-B/16's size: images a second, memory and largest batch beside full logits |
| tests | tests/core/kernels, and every test marked `gpu` |

All of them may need more than ten minutes: --only equality --only no_wait --only large --only plain, then
--only dims --only steps --only fitted, then --only search --only encode --only cycle, then --only clip
--only tests.

Each section runs in a process of its own, so that a broken kernel ends one section, not all. A section that
fails, misses a required goal, or finds no time left is named at the end; then the exit code is 1. Without a
CUDA device it is 2. Rows are written after each section to --json, which is `$OUT/gpu.json` where OUT is set
(a folder that is brought back from a borrowed machine).

Needs torch with CUDA, numpy and jaxtyping, and triton for the kernels. `steps` and `fitted` also need
transformers and pydantic (with pydantic-core, annotated-types, typing-inspection); `encode`, `cycle` and
`clip` all that the package needs; `search` compares with faiss where a GPU build is installed; `tests` also
pytest, hypothesis, beartype, and what the marked files import.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from side_by_side import Row, parse, report, save

# Section -> module, function, seconds it may take.
SECTIONS = {
    "equality": ("gpu_checks", "equality", 120),
    "no_wait": ("gpu_checks", "no_wait", 90),
    "large": ("gpu_loss", "large", 150),
    "dims": ("gpu_loss", "small_dims", 240),
    "plain": ("gpu_loss", "beside_plain", 90),
    "steps": ("gpu_steps", "cached", 150),
    "fitted": ("gpu_steps", "fitted", 90),
    "search": ("gpu_search", "search", 240),
    "encode": ("gpu_text", "encode", 120),
    "cycle": ("gpu_text", "cycle", 180),
    "images": ("gpu_images", "images", 120),
    "images_wait": ("gpu_images", "no_wait", 90),
    "images_run": ("gpu_image_run", "whole_run", 540),
    "clip": ("gpu_clip", "clip", 300),
    "tests": ("gpu_tests", "run_tests", 240),
}
# Importing torch and waking the GPU takes so long.
LEAST_SECONDS = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the chosen sections; returns the exit code."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=SECTIONS, help="a section; may be repeated")
    parser.add_argument("--seconds", type=float, default=540, help="time for all sections together")
    given = parse(parser, arguments)
    if not torch.cuda.is_available():
        print(f"gpu.py needs a CUDA device; torch {torch.__version__} sees none", file=sys.stderr)
        return 2
    if given.json is None and "OUT" in os.environ:
        given.json = Path(os.environ["OUT"]) / "gpu.json"
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)
    rows, failed = run_sections(given)
    print()
    report(rows, given)
    for name, reason in failed.items():
        print(f"FAILED {name}: {reason}")
    return 1 if failed else 0


def run_sections(given: Namespace) -> tuple[list[Row], dict[str, str]]:
    """Rows of all sections, and why some failed."""
    stop = time.monotonic() + given.seconds
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for name in given.only or SECTIONS:
        start = time.monotonic()
        seconds = min(SECTIONS[name][2], stop - start)
        if seconds < LEAST_SECONDS:
            failed[name] = f"no time left; run it with --only {name}"
            continue
        print(f"\n{name} ...", flush=True)
        found = run_section(name, quick=given.quick, seconds=seconds)
        if isinstance(found, str):
            failed[name] = found
            print(f"{name} failed after {time.monotonic() - start:.0f} s: {found}", flush=True)
            continue
        rows += found
        if missed := [row.name for row in found if row.goal and row.goal.required and not row.reached]:
            failed[name] = f"missed: {'; '.join(missed)}"
        report(found, Namespace(quick=given.quick, json=None))
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        if given.json is not None:
            save(rows, given.json)
    return rows, failed


def run_section(name: str, *, quick: bool, seconds: float) -> list[Row] | str:
    """The rows of a section, run in a process of its own; or why there are none."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_rows, args=(name, quick, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            return f"not done after {seconds:.0f} s"
        found: list[Row] | str = receiver.recv()
        return found
    except EOFError:
        process.join(5)
        return f"its process died with exit code {process.exitcode}"
    finally:
        if process.is_alive() and process.pid:
            # Before it has made its group there is none, and nothing it started either.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
        process.join()


def _send_rows(name: str, quick: bool, sender: Connection) -> None:
    # A group of its own: what a section starts ends with it.
    os.setsid()
    try:
        module, function, _ = SECTIONS[name]
        section: Callable[..., list[Row]] = getattr(import_module(module), function)
        sender.send(section(torch.device("cuda"), quick=quick))
    except Exception as error:
        traceback.print_exc()
        sender.send(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
