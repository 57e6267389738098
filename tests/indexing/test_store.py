import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing import store


def test_vectors_are_mapped_and_not_to_be_written(tmp_path):
    path, vectors = tmp_path / store.VECTORS, np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(path, vectors)
    found = store.map_vectors(path, num_bytes=path.stat().st_size)
    assert isinstance(found, np.memmap) and not found.flags.writeable
    np.testing.assert_array_equal(found, vectors)


def test_a_cut_or_missing_file_is_never_read(tmp_path):
    path = tmp_path / store.VECTORS
    np.save(path, np.zeros((20, 3), dtype=np.float32))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"vectors\.npy: 364 bytes, the manifest says 368"):
        store.map_vectors(path, num_bytes=368)
    path.unlink()
    with pytest.raises(InputError, match=r"vectors\.npy: 0 bytes"):
        store.map_vectors(path, num_bytes=368)


def test_hash_tells_where_one_text_ends():
    assert store.hash_texts(["ab", "c"]) != store.hash_texts(["a", "bc"])
    assert store.hash_texts(["ab", ""]) != store.hash_texts(["ab"])
    assert store.make_key("encoder", "passage") == store.make_key("encoder", "passage")
