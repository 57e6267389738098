"""Stored vectors with ids and known pairs, as files, and the arguments that name them to `mine`."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

NUM_QUERIES, NUM_PASSAGES, DIM = 30, 90, 8


def write(path, vectors, ids):
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": ids, "vector": [row.tolist() for row in vectors]}), path)
        return path
    if path.suffix == ".npy":
        np.save(path, vectors)
    else:
        save_file({"vectors": vectors}, path)
    path.with_suffix(".ids.json").write_text(json.dumps(ids))
    return path


def write_stored(folder):
    """Queries with three right answers each, the passages of query i are 3 i to 3 i + 2; not unit rows."""
    generator = np.random.default_rng(0)
    queries = generator.standard_normal((NUM_QUERIES, DIM)).astype(np.float32)
    near = np.repeat(queries, 3, axis=0) + 0.4 * generator.standard_normal((NUM_PASSAGES, DIM))
    passages = (3 * near).astype(np.float32)
    write(folder / "q.npy", queries, [f"q{row}" for row in range(NUM_QUERIES)])
    write(folder / "p.npy", passages, list(range(1000, 1000 + NUM_PASSAGES)))
    pairs = [f"q{row // 3}\t{1000 + row}" for row in range(NUM_PASSAGES)]
    (folder / "known.tsv").write_text("\n".join(pairs) + "\n")
    return folder


def files(folder, queries="q.npy", passages="p.npy", positives="known.tsv"):
    return (
        *("--query-vectors", folder / queries, "--passage-vectors", folder / passages),
        *("--positives", folder / positives, "-o", folder / "out"),
    )


def rows_of(folder):
    return [json.loads(line) for line in (folder / "out" / "negatives.jsonl").read_text().splitlines()]
