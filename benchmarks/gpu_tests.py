"""GPU section that runs tests: those of the kernels, and every test that is marked `gpu`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import torch
from side_by_side import Goal, Row, compare_amounts

ROOT = Path(__file__).parents[1]
# The kernels' tests run where they can, marked or not: interpreted on a CPU, compiled on a GPU.
KERNELS = Path("tests/core/kernels")
ALL_PASS = Goal(1.0, "at least", required=True)


def run_tests(device: torch.device, *, quick: bool) -> list[Row]:
    """Tests that passed, beside those that ran."""
    rows = pytest_rows([KERNELS], marks="not slow or gpu")
    if not quick:
        rows += pytest_rows(marked_files(), marks="gpu")
    return rows


def marked_files() -> list[Path]:
    """Files with tests marked `gpu`, those of the kernels left out."""
    files = sorted(ROOT.glob("tests/**/test_*.py"))
    found = [file.relative_to(ROOT) for file in files if "mark.gpu" in file.read_text(encoding="utf8")]
    return [file for file in found if KERNELS not in file.parents]


def pytest_rows(paths: Sequence[Path], *, marks: str) -> list[Row]:
    """One row for the tests in some paths; none where there is no such test."""
    if not paths:
        return []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-m", marks, "-p", "no:cacheprovider", "--junitxml", str(report)]
        # A file whose imports are missing on the machine is an error of that file alone.
        options.append("--continue-on-collection-errors")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *map(str, paths), *options], cwd=ROOT, check=False
        )
        if done.returncode not in (0, 1, 5) or not report.exists():
            raise RuntimeError(f"pytest could not run {', '.join(map(str, paths))}: code {done.returncode}")
        return count(report, name=f"tests, {marks}: {', '.join(map(str, paths))}")


def count(report: Path, *, name: str) -> list[Row]:
    """Reads pytest's JUnit file."""
    sums = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        for key in sums:
            sums[key] += int(suite.get(key, 0))
    ran = sums["tests"] - sums["skipped"]
    if ran == 0:
        return []
    passed = ran - sums["failures"] - sums["errors"]
    return [compare_amounts(name, passed, ran, unit="tests", goal=ALL_PASS)]
