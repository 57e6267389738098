"""Search by image: files and ids, the image itself left out, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from retrieval_cl.config import load_image_config
from retrieval_cl.core.errors import InputError
from retrieval_cl.runs.index_images import index_images
from retrieval_cl.runs.models import find_model
from retrieval_cl.runs.search import find_index
from retrieval_cl.runs.search_images import ImageSearcher, write_sheet


@pytest.fixture(scope="module")
def searcher(image_run_once):
    return ImageSearcher(find_index(image_run_once / "run"))


def test_image_of_the_index_finds_its_neighbours_by_brute_force_but_not_itself(searcher):
    vectors = np.asarray(searcher.index.vectors)
    for name in ("train/red/0.png", "test/blue/2.png"):
        row = searcher.index.row_of(name)
        scores = vectors @ vectors[row]
        scores[row] = -np.inf
        wanted = np.argsort(-scores, kind="stable")[:5].tolist()
        answer = searcher.search(name, k=5)
        assert [hit.id for hit in answer.hits] == [one.id for one in searcher.index.passages(wanted)]
        assert [hit.score for hit in answer.hits] == pytest.approx(scores[wanted].tolist(), abs=1e-6)
        assert [hit.rank for hit in answer.hits] == [1, 2, 3, 4, 5]
        assert answer.title == name.split("/")[1]


def test_file_finds_the_same_image_first(searcher, image_run_once):
    file = image_run_once / "colours" / "train" / "green" / "4.png"
    answer = searcher.search(str(file), k=3)
    assert answer.hits[0].id == "train/green/4.png"
    assert answer.hits[0].score == pytest.approx(1.0, abs=1e-6)
    assert (len(answer.hits), answer.title) == (3, "")


def test_file_is_decoded_as_the_indexed_images_were(image_run, tmp_path):
    draw = np.random.default_rng(0)
    photos = tmp_path / "photos"
    photos.mkdir()
    for place in range(6):
        Image.fromarray(draw.integers(0, 256, (20 + place, 30, 3), dtype=np.uint8)).save(
            photos / f"{place}.png"
        )
    for fit in ("crop", "stretch"):
        # Four pixels a side: a file at its own size would look otherwise.
        config = load_image_config(None, ["source.size=4", f"source.fit={fit}"], data=str(photos))
        index_images(config, find_model(str(image_run)), output=tmp_path / fit)
        answer = ImageSearcher(find_index(tmp_path / fit)).search(str(photos / "3.png"), k=1)
        assert answer.hits[0].id == "3.png"
        assert answer.hits[0].score == pytest.approx(1.0, abs=1e-6)


def test_file_of_another_size_and_mode_is_searched_too(searcher, tmp_path):
    Image.new("L", (40, 25), 120).save(tmp_path / "grey.png")
    answer = searcher.search(str(tmp_path / "grey.png"), k=2)
    assert len(answer.hits) == 2 and all(np.isfinite(hit.score) for hit in answer.hits)


def test_k_beyond_the_index_gives_all_but_the_image_itself(searcher, image_run_once):
    assert len(searcher.search("test/red/0.png", k=100).hits) == 47
    file = str(image_run_once / "colours" / "test" / "red" / "0.png")
    assert len(searcher.search(file, k=100).hits) == 48


def test_answer_as_text_and_as_json_names_hits_without_pictures(searcher):
    answer = searcher.search("test/red/0.png", k=2)
    found = answer.to_json()
    assert found["query"] == "test/red/0.png"
    assert [hit.keys() for hit in found["hits"]] == [{"rank", "score", "id", "title"}] * 2
    first = answer.text().splitlines()[0].split()
    assert first == ["1", f"{answer.hits[0].score:.3f}", answer.hits[0].id, answer.hits[0].title]


def test_what_is_neither_file_nor_id_is_refused_with_an_example(searcher, tmp_path):
    with pytest.raises(InputError, match=r"'none\.png': no such file, and no image of .*such as 'test/blue"):
        searcher.search("none.png", k=1)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"notes\.txt: no readable image"):
        searcher.search(str(tmp_path / "notes.txt"), k=1)
    with pytest.raises(InputError, match="-k 0: expected at least 1"):
        searcher.search("test/red/0.png", k=0)


def test_model_that_has_changed_is_refused(image_run):
    from safetensors.numpy import load_file, save_file

    weights = image_run / "model" / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("weight"))
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match="made by another model than"):
        ImageSearcher(find_index(image_run))


def test_sheet_marks_hits_of_the_same_class(searcher, tmp_path):
    answer = searcher.search("test/red/0.png", k=40)
    write_sheet(tmp_path / "hits.html", [answer], index=searcher.index)
    page = (tmp_path / "hits.html").read_text()
    right = sum(hit.title == "red" for hit in answer.hits)
    assert 0 < right < 40
    assert page.count('class="shot right"') == right
    assert page.count('class="shot wrong"') == 40 - right
    write_sheet(tmp_path / "hits.png", [answer], index=searcher.index)
    assert Image.open(tmp_path / "hits.png").width > 40 * 96
