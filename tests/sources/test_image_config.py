import pytest
from pydantic import ValidationError

from retrieval_cl.sources.images.config import ImageSourceConfig


def refusal(**values):
    with pytest.raises(ValidationError) as caught:
        ImageSourceConfig(**values)
    return str(caught.value)


def test_the_default_needs_no_download():
    assert ImageSourceConfig().kind == "digits"


@pytest.mark.parametrize("kind", ["image_folder", "image_npz", "image_parquet", "image_dataset"])
def test_all_other_kinds_need_a_path(kind):
    assert f"kind '{kind}' needs a path" in refusal(kind=kind)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"kind": "digits", "path": "x"}, "path has no effect with kind 'digits'; only with 'image_folder'"),
        (
            {"kind": "image_npz", "path": "x", "warped": True},
            "warped has no effect with kind 'image_npz'; only with 'digits'",
        ),
        (
            {"kind": "image_folder", "path": "x", "label_column": "y"},
            "label_column has no effect with kind 'image_folder'; only with 'image_parquet' or",
        ),
        ({"fit": "pad"}, "fit 'pad' has no effect without a size"),
        ({"kind": "digits", "cache_dir": "x"}, "cache_dir has no effect with kind 'digits'"),
        ({"kind": "image_npz", "path": "x", "subset": "y"}, "only with 'image_dataset'"),
    ],
)
def test_a_setting_without_effect_is_refused(values, line):
    assert line in refusal(**values)


def test_shares_must_leave_something_to_train_on():
    assert "leave no image to train on" in refusal(test_share=0.6, dev_share=0.4)


def test_an_unknown_kind_lists_the_valid_ones():
    assert "'image_parquet'" in refusal(kind="images", path="x")


def test_every_setting_is_described():
    assert all(field.description for field in ImageSourceConfig.model_fields.values())
