import subprocess
import sys

import pytest
from pydantic import ValidationError

from retrieval_cl.encoders.image_text_config import ImageTextEncoderConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "some/clip"}, "path has no effect with kind 'pair'; remove it or set kind to pretrained"),
        ({"kind": "pretrained"}, "kind 'pretrained' needs path"),
        ({"kind": "pretrained", "path": "x", "dim": 8}, "dim has no effect with kind 'pretrained'"),
        (
            {"kind": "pretrained", "path": "x", "image": {"size": 16}},
            "image has no effect with kind 'pretrained'; remove it or set kind to pair",
        ),
        ({"kind": "pretrained", "path": "x", "text": {"dim": 8}}, "text has no effect"),
        (
            {"text": {"kind": "transformer", "path": "x", "towers": "separate"}},
            "text.towers = 'separate' has no effect: captions have one tower",
        ),
        ({"text": {"query_prompt": "q: "}}, "text.query_prompt has no effect"),
        ({"locked": "image"}, "would keep the random weights of image.kind 'convnet'"),
        ({"locked": "text", "text": {"init": "random"}}, "would keep the random vectors of text.init"),
        ({"locked": "text", "text": {"token_dropout": 0.1}}, "text.token_dropout has no effect on a locked"),
        ({"locked": "both"}, "Input should be 'image' or 'text'"),
        ({"dim": 1}, "greater than or equal to 2"),
    ],
)
def test_an_image_text_setting_that_cannot_work_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        ImageTextEncoderConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"image": {"kind": "pretrained", "path": "a"}, "locked": "image"},
        {"locked": "text", "dim": 8},
        {"kind": "pretrained", "path": "some/clip", "locked": "image"},
    ],
)
def test_dumped_image_text_settings_load_again(settings):
    config = ImageTextEncoderConfig(**settings)
    assert ImageTextEncoderConfig.model_validate_json(config.model_dump_json()) == config


def test_every_image_text_setting_is_described():
    assert all(field.description for field in ImageTextEncoderConfig.model_fields.values())


def test_reading_image_text_settings_imports_no_model_library():
    code = (
        "import sys, retrieval_cl.encoders.image_text_config\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
