import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing import store


@pytest.fixture
def vectors():
    return np.random.default_rng(0).standard_normal((20, 3), np.float32)


def test_vectors_come_back_under_their_fingerprint_only(tmp_path, vectors):
    store.write_embeddings(tmp_path / "e", vectors, fingerprint="one")
    read = store.read_embeddings(tmp_path / "e", fingerprint="one")
    assert isinstance(read, np.memmap) and not read.flags.writeable
    np.testing.assert_array_equal(read, vectors)
    assert store.read_embeddings(tmp_path / "e", fingerprint="two") is None
    assert store.read_embeddings(tmp_path / "other", fingerprint="one") is None


def test_error_while_writing_leaves_the_old_vectors(tmp_path, vectors):
    store.write_embeddings(tmp_path / "e", vectors, fingerprint="one")
    with (
        pytest.raises(OSError, match="disk full"),
        store.new_embeddings(tmp_path / "e", num_rows=5, dim=3, fingerprint="two") as out,
    ):
        out[0] = 1
        raise OSError("disk full")
    np.testing.assert_array_equal(store.read_embeddings(tmp_path / "e", fingerprint="one"), vectors)
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def test_folder_without_manifest_is_never_read(tmp_path, vectors):
    store.write_embeddings(tmp_path / "e", vectors, fingerprint="one")
    (tmp_path / "e" / "manifest.json").unlink()
    with pytest.raises(InputError, match="half written"):
        store.read_embeddings(tmp_path / "e", fingerprint="one")


def test_cut_file_is_never_read(tmp_path, vectors):
    store.write_embeddings(tmp_path / "e", vectors, fingerprint="one")
    path = tmp_path / "e" / store.VECTORS
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"vectors\.npy: 364 bytes, the manifest says 368"):
        store.read_embeddings(tmp_path / "e", fingerprint="one")


def test_hash_tells_where_one_text_ends():
    assert store.hash_texts(["ab", "c"]) != store.hash_texts(["a", "bc"])
    assert store.hash_texts(["ab", ""]) != store.hash_texts(["ab"])
    assert store.make_key("encoder", "passage") == store.make_key("encoder", "passage")
