"""A model of images with texts is found as the others are: by its run, by its folder."""

import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import write_manifest
from retrieval_cl.encoders.image_config import IMAGE_FOLDER_KIND
from retrieval_cl.encoders.image_text_config import IMAGE_TEXT_FOLDER_KIND
from retrieval_cl.runs.models import config_for, find_model


@pytest.fixture
def run(tmp_path):
    """A run as training leaves it, with the towers of its model inside."""
    model = tmp_path / "my_run" / "model"
    (model / "image").mkdir(parents=True)
    (model / "text").mkdir()
    (model / "text" / "modules.json").touch()
    write_manifest(model / "image", IMAGE_FOLDER_KIND)
    write_manifest(model, IMAGE_TEXT_FOLDER_KIND)
    (tmp_path / "my_run" / "config.yaml").touch()
    return tmp_path / "my_run"


def test_an_image_text_model_is_found_by_its_run_and_by_its_folder(run):
    for name in (run, run / "model"):
        found = find_model(str(name))
        assert (found.path, found.name, found.run) == (str(run / "model"), "my_run", run)
        assert found.embeds == "image_text"


def test_the_towers_of_an_image_text_model_are_models_of_their_own(run):
    assert [find_model(str(run / "model" / tower)).embeds for tower in ("image", "text")] == [
        "images",
        "texts",
    ]


def test_commands_for_texts_refuse_an_image_text_model(run):
    with pytest.raises(InputError, match="this command takes one of texts"):
        config_for(find_model(str(run)), config=None, overrides=[], data="pydoc")
