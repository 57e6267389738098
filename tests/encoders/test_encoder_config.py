import subprocess
import sys

import pytest
from pydantic import ValidationError

from retrieval_cl.encoders.config import EncoderConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "static", "path": "some/model"}, "path = 'some/model' has no effect with kind 'static'"),
        ({"kind": "static", "pooling": "cls"}, "set kind to transformer"),
        ({"kind": "transformer", "path": "x", "dim": 64}, "dim = 64 has no effect with kind 'transformer'"),
        ({"kind": "sentence_transformer", "path": "x", "pooling": "cls"}, "set kind to transformer"),
        ({"kind": "sentence_transformer", "path": "x", "init": "random"}, "set kind to static"),
        ({"kind": "sentence_transformer"}, "kind 'sentence_transformer' needs path"),
        ({"kind": "transformer", "path": ""}, "kind 'transformer' needs path"),
        ({"kind": "bert"}, "Input should be 'static', 'sentence_transformer' or 'transformer'"),
        ({"dims": 3}, "Extra inputs are not permitted"),
        ({"dim": 1}, "greater than or equal to 2"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        EncoderConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [{}, {"dim": 64, "query_prompt": "q: "}, {"kind": "transformer", "path": "x", "pooling": "cls"}],
)
def test_a_dumped_config_loads_again(settings):
    config = EncoderConfig(**settings)
    assert EncoderConfig(**config.model_dump()) == config


def test_every_setting_is_described():
    assert all(field.description for field in EncoderConfig.model_fields.values())


def test_reading_settings_imports_no_model_library():
    code = (
        "import sys, retrieval_cl.encoders.config\n"
        "print(sorted({'torch', 'transformers', 'sentence_transformers', 'tokenizers'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
