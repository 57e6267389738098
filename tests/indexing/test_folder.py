import json
import shutil

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing import exact
from retrieval_cl.indexing.approximate import FaissSettings
from retrieval_cl.indexing.bm25 import Lexical
from retrieval_cl.indexing.folder import open_index, write_index
from retrieval_cl.indexing.fusion import reciprocal_rank_fusion
from retrieval_cl.indexing.passages import Passage

COUNT = 3000


def faiss_of(factory):
    return None if factory is None else FaissSettings(factory)


@pytest.fixture(scope="module")
def vectors():
    vectors = np.random.default_rng(0).standard_normal((COUNT, 8), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def write(tmp_path, vectors):
    def write(**changes):
        parts = {
            "vectors": vectors,
            "ids": [f"id{n}" for n in range(COUNT)],
            "titles": ["Ein Titel ☃" if n % 2 else "" for n in range(COUNT)],
            "texts": [f"text number {n}" for n in range(COUNT)],
            "fingerprint": "encoder one",
        }
        write_index(tmp_path / "index", **(parts | changes))
        return tmp_path / "index"

    return write


@pytest.mark.parametrize("factory", [None, "Flat", "auto"])
def test_search_gives_the_bits_of_exact_search(write, vectors, factory):
    index = open_index(write(faiss=faiss_of(factory)), fingerprint="encoder one")
    hits, exactly = index.search(vectors[:9], k=12), exact.search(vectors[:9], vectors, k=12)
    np.testing.assert_array_equal(hits.rows, exactly.rows)
    np.testing.assert_array_equal(hits.scores, exactly.scores)
    assert (len(index), index.dim) == (COUNT, 8)
    assert index.manifest["faiss_factory"] == (None if factory is None else "Flat")


def test_exact_index_needs_no_faiss(write, vectors, monkeypatch):
    folder = write(faiss=None)
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    assert open_index(folder).search(vectors[5:6], k=1).rows.tolist() == [[5]]


def test_passages_come_back_by_row_from_any_group(write):
    index = open_index(write())
    assert index.passages([2999, 0, 2048]) == [
        Passage("id2999", "Ein Titel ☃", "text number 2999"),
        Passage("id0", "", "text number 0"),
        Passage("id2048", "", "text number 2048"),
    ]


@pytest.mark.parametrize("factory", [None, "Flat"])
def test_k_beyond_corpus_returns_all_rows_and_k_below_one_is_an_error(write, vectors, factory):
    index = open_index(write(faiss=faiss_of(factory)))
    hits = index.search(vectors[:1], k=COUNT + 100)
    assert hits.rows.shape == (1, COUNT) and sorted(hits.rows[0]) == list(range(COUNT))
    with pytest.raises(InputError, match="k is 0"):
        index.search(vectors[:1], k=0)


def test_words_are_searched_and_fused(write, vectors):
    lexical = Lexical.fit([["text", "number", str(n)] for n in range(COUNT)], k1=1.2, b=0.5)
    index = open_index(write(lexical=lexical))
    words = index.search_words([["number", "77"]], k=3)
    assert words.rows[0, 0] == 77
    fused = reciprocal_rank_fusion([index.search(vectors[77:78], k=3), words], k=3)
    assert fused.rows[0, 0] == 77


def test_search_by_words_without_words_is_an_error(write):
    index = open_index(write())
    assert not index.has_words
    with pytest.raises(InputError, match="holds no words"):
        index.search_words([["a"]], k=1)


def test_index_of_another_encoder_is_refused(write):
    folder = write()
    with pytest.raises(InputError, match="made by the encoder encoder one, this one is encoder two"):
        open_index(folder, fingerprint="encoder two")


def test_query_of_another_width_is_refused(write, vectors):
    index = open_index(write())
    with pytest.raises(InputError, match="vectors of dim 8, the query has dim 5"):
        index.search(np.ones((1, 5), np.float32), k=1)


@pytest.mark.parametrize("factory", [None, "Flat"])
def test_query_that_is_not_finite_is_refused(write, factory):
    index = open_index(write(faiss=faiss_of(factory)))
    with pytest.raises(InputError, match="queries: row 1 "):
        index.search(np.array([[1.0] * 8, [np.nan] * 8], np.float32), k=1)


@pytest.mark.parametrize(
    "name", ["vectors.npy", "passages.parquet", "index.faiss", "lexical/data.csc.index.npy"]
)
def test_missing_cut_or_changed_file_is_named(write, name):
    folder = write(faiss=FaissSettings("Flat"), lexical=Lexical.fit([["a"]] * COUNT, k1=1.2, b=0.5))
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(InputError, match=rf"{name}: has \d+ bytes, the manifest says \d+"):
        open_index(folder)
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match=f"{name}: its bytes are not those of the manifest"):
        open_index(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name}: is missing"):
        open_index(folder)


def test_half_written_folder_is_no_index(write, tmp_path):
    folder = write()
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="half written"):
        open_index(folder)
    with pytest.raises(InputError, match="no such folder"):
        open_index(tmp_path / "nowhere")


def test_error_while_writing_leaves_the_old_index(write, tmp_path, vectors):
    write()
    with pytest.raises(InputError, match="faiss factory"):
        write(faiss=FaissSettings("Nonsense"), texts=["new"] * COUNT)
    assert open_index(tmp_path / "index").passages([3])[0].text == "text number 3"
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_what_is_no_index_is_never_replaced(write, tmp_path):
    folder = write()
    write(texts=["another"] * COUNT)
    for path in (folder / "manifest.json", tmp_path / "index" / "notes.txt"):
        shutil.rmtree(folder)
        folder.mkdir()
        path.write_text('{"kind": "negative_table"}')
        with pytest.raises(InputError, match="holds something else than an index, which would be lost"):
            write()
        assert [each.name for each in folder.iterdir()] == [path.name]
    shutil.rmtree(folder)
    folder.write_text("a file")
    with pytest.raises(InputError, match="holds something else than an index"):
        write()
    assert folder.read_text() == "a file"


def test_empty_folder_is_taken(write, tmp_path):
    (tmp_path / "index").mkdir()
    assert len(open_index(write())) == COUNT


@pytest.mark.parametrize("copied", [False, True])
def test_encoder_is_found_after_both_were_moved(write, tmp_path, copied):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("x")
    write(encoder_path=tmp_path / "model", copy_encoder=copied)
    (tmp_path / "moved").mkdir()
    for name in ("index", "model"):
        shutil.move(tmp_path / name, tmp_path / "moved" / name)
    if copied:
        shutil.rmtree(tmp_path / "moved" / "model")
    index = open_index(tmp_path / "moved" / "index")
    assert (index.encoder_path / "weights").read_text() == "x"


def test_encoder_that_is_gone_is_named(write, tmp_path):
    (tmp_path / "model").mkdir()
    folder = write(encoder_path=tmp_path / "model")
    (tmp_path / "model").rmdir()
    with pytest.raises(InputError, match="its model is not at"):
        open_index(folder).encoder_path  # noqa: B018
    write()
    with pytest.raises(InputError, match="does not say which model"):
        open_index(folder).encoder_path  # noqa: B018


def test_bad_parts_are_refused(write, vectors):
    with pytest.raises(InputError, match=r"different lengths.*'texts': 2"):
        write(texts=["a", "b"])
    with pytest.raises(InputError, match="passage id 'x' stands twice"):
        write(ids=["x"] * COUNT)
    broken = vectors.copy()
    broken[1234, 5] = np.nan
    with pytest.raises(InputError, match="vectors: row 1234 "):
        write(vectors=broken)
    with pytest.raises(InputError, match="at least one passage"):
        write(vectors=vectors[:0], ids=[], titles=[], texts=[])


def test_manifest_says_how_it_was_made(write):
    folder = write(made_by={"data": "set"})
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["made_by"] == {"data": "set"} and manifest["count"] == COUNT
    assert set(manifest["files"]) == {"vectors.npy", "passages.parquet"}
