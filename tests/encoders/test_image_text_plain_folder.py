"""Models that transformers saved, CLIP and SigLIP, embed images and texts as they are: found, indexed."""

import numpy as np
import pytest
from image_text_models import CAPTIONS, save_clip, save_siglip, tiny_whole
from tiny_clip import write_photos

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.image_text_config import WHOLE_TYPES
from retrieval_cl.encoders.image_text_whole import FAMILIES
from retrieval_cl.encoders.load_image_text import load_image_text_encoder
from retrieval_cl.runs.models import find_model
from retrieval_cl.runs.search import find_index
from retrieval_cl.runs.search_image_text import ImageTextSearcher
from retrieval_cl.runs.stories import index_story


@pytest.mark.parametrize("save", [save_clip, save_siglip])
def test_plain_folder_is_loaded_as_training_would_start_from_it(save, tmp_path):
    folder = save(tmp_path / "plain")
    loaded, start = load_image_text_encoder(folder), tiny_whole(folder)
    assert loaded.fingerprint() == start.fingerprint()
    assert np.array_equal(loaded.encode_texts(CAPTIONS), start.encode_texts(CAPTIONS))


def test_plain_folder_is_found_as_a_model_of_images_with_texts_by_its_type(tmp_path):
    assert set(WHOLE_TYPES) == FAMILIES.keys()
    found = find_model(str(save_clip(tmp_path / "plain")))
    assert (found.embeds, found.name, found.run) == ("image_text", "plain", None)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="no model in this folder"):
        find_model(str(tmp_path / "bert"))


@pytest.mark.parametrize(("save", "fit"), [(save_clip, "crop"), (save_siglip, "stretch")])
def test_photos_are_indexed_by_it_fitted_as_it_fits_images_and_found_by_words(save, fit, tmp_path):
    model = find_model(str(save(tmp_path / "plain")))
    photos = write_photos(tmp_path / "photos", [(200, 100), (100, 200), (150, 120)])
    story = index_story(model, config=None, overrides=[], data=str(photos), corpus=None)
    said = []
    story(output=tmp_path / "index", copy_model=True, say=said.append, progress=None)
    assert said[0].startswith(f"images are fitted to squares of 96 pixels: {fit}")
    searcher = ImageTextSearcher(find_index(tmp_path / "index"))
    assert searcher.search(str(photos / "1.png"), k=1).hits[0].id == "1.png"
    query = load_image_text_encoder(model.path).encode_texts(["a red square"])[0]
    wanted = np.argsort(-(np.asarray(searcher.index.vectors) @ query), kind="stable")
    assert [hit.id for hit in searcher.search("a red square").hits] == [f"{row}.png" for row in wanted]
