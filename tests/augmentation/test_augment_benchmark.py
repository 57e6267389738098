"""The benchmark beside kornia runs, and refuses to compare unlike things."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("kornia", reason="pip install kornia kornia_rs")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
benchmark = importlib.import_module("augment")
side_by_side = importlib.import_module("side_by_side")


@pytest.mark.slow
def test_every_setting_is_timed_beside_kornia(tmp_path, capsys):
    threads, file = torch.get_num_threads(), tmp_path / "rows.json"
    benchmark.main(["--quick", "--repeats", "1", "--threads", "1", "--json", str(file)])
    torch.set_num_threads(threads)
    rows, printed = json.loads(file.read_text()), capsys.readouterr().out
    assert len(rows) == 2 * len(benchmark.SETTINGS)
    assert all(row["name"] in printed and row["ours"] > 0 and row["peer"] > 0 for row in rows)


def test_views_of_other_colours_are_not_compared():
    views = torch.randn(2, 4, 3, 8, 8)
    values = {"ours": views, "kornia": views + 1}
    with pytest.raises(RuntimeError, match="views differ: mean"):
        benchmark.refuse_other_views(side_by_side.Timings({}, values), "byol")
