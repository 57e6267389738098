"""A killed build of an index leaves the one before it, or none; the next one ends in the same bytes."""

import time
from pathlib import Path

import numpy as np
import pytest
from killed import kill_when, tree

from retrieval_cl.encoders.words import split_words
from retrieval_cl.indexing.approximate import FaissSettings
from retrieval_cl.indexing.bm25 import Lexical
from retrieval_cl.indexing.folder import open_index, write_index

NUM = 4000
KILLS = 8
CHILD = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], str(Path(sys.argv[2]).parent)]
import test_index_killed
print("ready", flush=True)
while True:
    test_index_killed.build(Path(sys.argv[1]))
"""


def build(folder):
    """Vectors, texts, words and a tuned FAISS index."""
    vectors = np.random.default_rng(0).standard_normal((NUM, 16)).astype(np.float32)
    texts = [f"passage {row} of {row % 7} and {row % 31}" for row in range(NUM)]
    write_index(
        folder,
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        ids=[str(row) for row in range(NUM)],
        titles=[""] * NUM,
        texts=texts,
        fingerprint="f",
        faiss=FaissSettings("IVF32,SQ8", target_recall=0.9),
        lexical=Lexical.fit(split_words(texts), k1=1.2, b=0.75),
    )


@pytest.mark.slow
def test_killed_at_random_moments_it_is_whole_or_not_there_and_ends_in_the_same_bytes(tmp_path):
    pytest.importorskip("faiss")
    started = time.monotonic()
    build(tmp_path / "whole")
    seconds = time.monotonic() - started
    expected, rng, folder, left = tree(tmp_path / "whole"), np.random.default_rng(), tmp_path / "index", 0
    for _ in range(KILLS):
        arguments = (folder, Path(__file__).parent)
        assert kill_when(CHILD, arguments, wait=lambda: time.sleep(rng.uniform(0, 1.5 * seconds)))
        left = max(left, len(list(tmp_path.glob(".index.*"))))
        if folder.exists():
            assert len(open_index(folder, check_hashes=True)) == NUM
            assert tree(folder) == expected
    # Some were killed in the midst of it.
    assert left > 0
    build(folder)
    assert tree(folder) == expected
