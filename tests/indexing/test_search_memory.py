"""The memory bound of exact search, measured by the kernel in a process of its own."""

import subprocess
import sys

import numpy as np

from retrieval_cl.indexing.vector_files import map_file, to_stored

MIB = 2**20
# Prints how far anonymous memory rose while searching; pages of maps are not anonymous.
CHILD = """
import sys, threading, time
from pathlib import Path
import numpy as np, torch
from retrieval_cl.indexing import exact
from retrieval_cl.indexing.hit_files import map_hits
from retrieval_cl.indexing.vector_files import map_file

folder, budget = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
anonymous = lambda: next(
    int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon")
)
few = torch.randn(300, 96)
exact.search(few, few, k=1)
before, peak, ended = anonymous(), [0], threading.Event()
def watch():
    while not ended.wait(0.002):
        peak[0] = max(peak[0], anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
out = map_hits(folder, 600, k=200)
exact.search(map_file(folder / "queries.npy"), map_file(folder / "passages.npy"), k=200,
             memory_bytes=budget, out=out)
ended.set()
watcher.join()
print(peak[0] - before)
"""


def test_maps_larger_than_the_budget_are_searched_within_it(tmp_path):
    import torch

    # 44 MiB of passages, which are twice that in float32.
    generator = torch.Generator().manual_seed(0)
    for name, rows, dtype in [("passages", 240_000, torch.float16), ("queries", 600, torch.bfloat16)]:
        vectors = torch.randn(rows, 96, generator=generator).to(dtype)
        np.save(tmp_path / f"{name}.npy", to_stored(vectors))
    budget = 40 * MIB
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 2 * MIB < int(done.stdout) <= budget, done.stdout
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    passages, queries = (map_file(tmp_path / f"{name}.npy").float() for name in ("passages", "queries"))
    scores = queries[123] @ passages.T
    assert set(rows[123, :100].tolist()) <= set(scores.topk(101).indices.tolist())
