import pytest
from pydantic import ValidationError

from retrieval_cl.sources.image_text.config import ImageTextSourceConfig
from retrieval_cl.sources.image_text.load import READERS


def refusal(**values):
    with pytest.raises(ValidationError) as caught:
        ImageTextSourceConfig(**values)
    return str(caught.value)


def test_captions_of_digits_are_the_default_and_need_no_path():
    config = ImageTextSourceConfig()
    assert config.kind == "caption_digits" and config.digit_captions == "several" and config.path is None


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "caption_digits"])
def test_a_kind_of_files_needs_a_path(kind):
    assert f"kind '{kind}' needs a path" in refusal(kind=kind)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"path": "x"}, "path has no effect with kind 'caption_digits'; only with 'image_text_table' or"),
        ({"stream": True, "size": 8}, "stream has no effect with kind 'caption_digits'"),
        (
            {"kind": "image_text_tar", "path": "x", "digit_captions": "class"},
            "digit_captions has no effect with kind 'image_text_tar'; only with 'caption_digits'",
        ),
        (
            {"kind": "image_text_npz", "path": "x", "image_root": "y"},
            "image_root has no effect with kind 'image_text_npz'; only with 'image_text_table'",
        ),
        ({"kind": "image_text_tar", "path": "x", "stream": True}, "stream needs a size"),
        (
            {"kind": "image_text_tar", "path": "x", "stream": True, "size": 8, "memory_gb": 1.0},
            "memory_gb has no effect with stream",
        ),
        (
            {"kind": "image_text_npz", "path": "x", "stream": True, "size": 8, "device_gb": 1.0},
            "device_gb has no effect with stream",
        ),
        ({"fit": "stretch"}, "fit 'stretch' has no effect without a size"),
        ({"test_share": 0.5, "dev_share": 0.5}, "leave no image to train on"),
        ({"kind": "image_text_table", "path": "x", "caption_columns": []}, "caption_columns"),
    ],
)
def test_a_setting_without_effect_is_refused_with_captions_too(values, line):
    assert line in refusal(**values)


def test_every_setting_of_images_with_captions_is_described():
    assert all(field.description for field in ImageTextSourceConfig.model_fields.values())
