"""Search by words and by images, among images and among captions; modes, sheets, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image
from tiny_clip import write_photos

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.load_image_text import load_image_text_encoder
from retrieval_cl.runs.models import find_model
from retrieval_cl.runs.search import find_index
from retrieval_cl.runs.search_image_text import ImageTextSearcher, write_sheet
from retrieval_cl.runs.stories import index_story
from retrieval_cl.sources.images.config import ImageSourceConfig
from retrieval_cl.sources.images.load import load_images

SEVEN = "a bold handwritten seven"


@pytest.fixture(scope="module")
def images(clip_run_once):
    return ImageTextSearcher(find_index(clip_run_once / "images.index"))


@pytest.fixture(scope="module")
def captions(clip_run_once):
    return ImageTextSearcher(find_index(clip_run_once / "captions.index"))


@pytest.fixture(scope="module")
def encoder(clip_run_once):
    return load_image_text_encoder(clip_run_once / "run" / "model")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The first digit as a file."""
    pixels = load_images(ImageSourceConfig()).images.take(np.array([0]))[0].permute(1, 2, 0).numpy()
    path = tmp_path_factory.mktemp("digit") / "zero.png"
    Image.fromarray(pixels).save(path)
    return path


def best(vectors, query, *, k, without=None):
    """Rows and scores of the k nearest by brute force."""
    scores = np.asarray(vectors) @ query
    if without is not None:
        scores[without] = -np.inf
    rows = np.argsort(-scores, kind="stable")[:k]
    return rows.tolist(), scores[rows].tolist()


def test_text_finds_images_and_captions_by_brute_force(images, captions, encoder):
    query = encoder.encode_texts([SEVEN])[0]
    for searcher, has_picture in ((images, True), (captions, False)):
        rows, scores = best(searcher.index.vectors, query, k=5)
        answer = searcher.search(SEVEN, k=5)
        assert (answer.asked_by, answer.picture, answer.mode) == ("text", None, "dense")
        assert [hit.id for hit in answer.hits] == [one.id for one in searcher.index.passages(rows)]
        assert [hit.score for hit in answer.hits] == pytest.approx(scores, abs=1e-6)
        assert [hit.rank for hit in answer.hits] == [1, 2, 3, 4, 5]
        assert {hit.picture is not None for hit in answer.hits} == {has_picture}
    assert answer.hits[0].text == SEVEN


def test_image_of_the_index_finds_others_but_not_itself(images):
    row = 17
    name = images.index.passages([row])[0].id
    rows, _ = best(images.index.vectors, images.index.vectors[row], k=4, without=row)
    answer = images.search(name, k=4)
    assert [hit.id for hit in answer.hits] == [one.id for one in images.index.passages(rows)]
    assert (answer.asked_by, answer.title) == ("image", images.index.passages([row])[0].title)
    assert answer.picture == images.index.thumbnails.take([row])[0]
    assert len(images.search(name, k=2000).hits) == 1796
    assert len(images.search(SEVEN, k=2000).hits) == 1797


def test_image_file_finds_itself_among_images_and_captions_among_captions(images, captions, encoder, file):
    found = images.search(str(file), k=3)
    assert found.asked_by == "image" and found.hits[0].score == pytest.approx(1, abs=1e-5)
    own = images.index.vectors[images.index.row_of(images.index.passages([0])[0].id)]
    rows, scores = best(captions.index.vectors, own, k=3)
    answer = captions.search(str(file), k=3)
    assert [hit.id for hit in answer.hits] == [one.id for one in captions.index.passages(rows)]
    assert [hit.score for hit in answer.hits] == pytest.approx(scores, abs=1e-5)
    assert Image.open(io.BytesIO(answer.picture)).size == (8, 8)


def test_image_file_is_fitted_as_the_images_of_the_index_were(clip_run_once, tmp_path):
    photos = write_photos(tmp_path / "photos", [(40, 16), (16, 40), (30, 30)])
    settings = ["source.size=12", "source.fit=pad"]
    model = find_model(str(clip_run_once / "run"))
    story = index_story(model, config=None, overrides=settings, data=str(photos), corpus=None)
    story(output=tmp_path / "index", copy_model=False, say=lambda line: None, progress=None)
    searcher = ImageTextSearcher(find_index(tmp_path / "index"))
    for name in ("0.png", "1.png", "2.png"):
        first = searcher.search(str(photos / name), k=1).hits[0]
        assert (first.id, first.score) == (name, pytest.approx(1, abs=1e-5))


def test_words_find_captions_that_share_them_and_the_hybrid_has_both_lists(captions):
    exact = captions.search("seven", k=100, mode="bm25").hits
    assert exact and all("seven" in hit.text for hit in exact)
    assert len(exact) == sum("seven" in one.text for one in captions.index.passages(range(80)))
    dense = [hit.id for hit in captions.search("seven bold", k=100).hits]
    words = [hit.id for hit in captions.search("seven bold", k=100, mode="bm25").hits]
    sums = {
        name: sum(1 / (61 + found.index(name)) for found in (dense, words) if name in found) for name in dense
    }
    hybrid = captions.search("seven bold", k=5, mode="hybrid").hits
    assert [hit.score for hit in hybrid] == pytest.approx(sorted(sums.values(), reverse=True)[:5], abs=1e-6)
    assert [sums[hit.id] for hit in hybrid] == pytest.approx([hit.score for hit in hybrid], abs=1e-6)


def test_modes_of_words_are_refused_for_images(images, captions, file):
    for mode in ("bm25", "hybrid"):
        with pytest.raises(
            InputError, match=f"--mode {mode}: .* holds images, which have no words; use dense"
        ):
            images.search(SEVEN, mode=mode)
        with pytest.raises(
            InputError, match=rf"--mode {mode}: '.*zero\.png' is an image, which has no words"
        ):
            captions.search(str(file), mode=mode)


def test_what_can_be_no_query_is_refused(images, captions, tmp_path):
    with pytest.raises(InputError, match="the query is empty"):
        images.search("  ")
    with pytest.raises(InputError, match="-k 0: expected at least 1"):
        images.search(SEVEN, k=0)
    with pytest.raises(InputError, match=r"'none\.JPG': no such file, and no image of .* has this id"):
        images.search("none.JPG")
    with pytest.raises(InputError, match=r"'none\.png': no such file$"):
        captions.search("none.png")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"notes\.txt: no readable image"):
        images.search(str(tmp_path / "notes.txt"))
    with pytest.raises(InputError, match="'猫': the model knows no word of it"):
        images.search("猫")


def test_text_longer_than_a_file_name_may_be_is_a_text(images):
    assert images.search("seven " * 2000, k=1).asked_by == "text"


def test_model_that_has_changed_is_refused(clip_run):
    from safetensors.numpy import load_file, save_file

    weights = next((clip_run / "run" / "model").rglob("projections.safetensors"))
    tensors = load_file(weights)
    name = min(tensors)
    save_file(tensors | {name: tensors[name] + 1e-3}, weights)
    with pytest.raises(InputError, match="made by another model than"):
        ImageTextSearcher(find_index(clip_run / "images.index")).search(SEVEN)


def test_answer_as_text_and_as_json_has_no_pictures(images, captions):
    answer = images.search(SEVEN, k=2)
    first = answer.hits[0]
    assert answer.text().splitlines()[0] == f"  1  {first.score:.3f}  {first.id}  {first.title}"
    found = answer.to_json()
    assert (found["query"], found["asked_by"], found["mode"]) == (SEVEN, "text", "dense")
    assert [hit.keys() for hit in found["hits"]] == [{"rank", "score", "id", "title", "text"}] * 2
    first = captions.search(SEVEN, k=1).hits[0]
    assert captions.search(SEVEN, k=1).text() == f"  1  {first.score:.3f}  {first.text}  ({first.title})"


def test_sheet_begins_with_the_words_or_the_picture_that_was_asked_by(images, captions, file, tmp_path):
    answers = [images.search(one, k=3) for one in (SEVEN, str(file), "digit/5")]
    write_sheet(tmp_path / "hits.html", answers, index=images.index)
    page = (tmp_path / "hits.html").read_text()
    assert page.count("<img") == 2 + 3 * 3 and page.count('class="shot words"') == 1
    assert f"<figcaption>{SEVEN}</figcaption>" in page and "<figcaption>zero.png</figcaption>" in page
    write_sheet(tmp_path / "hits.png", [captions.search(str(file), k=4)], index=captions.index)
    assert Image.open(tmp_path / "hits.png").width == 5 * (96 + 8) + 8
    write_sheet(tmp_path / "hits.html", [captions.search(SEVEN, k=4)], index=captions.index)
    page = (tmp_path / "hits.html").read_text()
    assert page.count("<img") == 0 and page.count('class="shot words"') == 5
