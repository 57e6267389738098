import numpy as np
import pytest
import torch
from image_models import some_images, tiny_encoder

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import write_json
from retrieval_cl.encoders.image_config import ImageEncoderConfig
from retrieval_cl.encoders.image_fit import processor_settings
from retrieval_cl.encoders.load_image import build_image_encoder


def pretrained(path, **settings):
    return build_image_encoder(ImageEncoderConfig(kind="pretrained", path=str(path), **settings), seed=0)


@pytest.fixture
def vit_folder(tmp_path):
    """A classifier of images as others save one: 12 px, its own mean and std."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=12,
        patch_size=4,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    settings = processor_settings(12, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    write_json(tmp_path / "vit" / "preprocessor_config.json", settings)
    return tmp_path / "vit"


def test_a_trained_model_brings_its_size_mean_and_std(vit_folder):
    from transformers import ViTForImageClassification

    encoder = pretrained(vit_folder)
    assert (encoder.size, encoder.mean, encoder.std) == (12, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (encoder.dim, encoder.pooling) == (8, "mean")
    given = ViTForImageClassification.from_pretrained(vit_folder).vit
    pixels = torch.randn(2, 3, 12, 12)
    expected = given(pixels).last_hidden_state[:, 1:].mean(dim=1)
    assert torch.equal(encoder.features(pixels), expected)
    other = pretrained(vit_folder, mean=(0.5, 0.5, 0.5), pooling="cls")
    assert (other.mean, other.std, other.pooling) == ((0.5, 0.5, 0.5), (0.4, 0.5, 0.6), "cls")


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        ({"image_processor_type": "ViTImageProcessor", "size": {"height": 12, "width": 12}}, 12),
        ({"image_processor_type": "ViTImageProcessor", "size": 12}, 12),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 12}}, 12),
        (
            {
                "image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": 20},
                "crop_size": {"height": 12, "width": 12},
            },
            12,
        ),
    ],
)
def test_processors_of_each_kind_say_the_size(vit_folder, processor, size):
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    write_json(vit_folder / "preprocessor_config.json", processor | settings)
    encoder = pretrained(vit_folder)
    assert (encoder.size, encoder.mean, encoder.std) == (size, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_weights_that_no_feature_needs_do_not_learn(tmp_path):
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        image_size=8, patch_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    Dinov2Model(config).save_pretrained(tmp_path / "dino")
    encoder = pretrained(tmp_path / "dino", size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    frozen = [name for name, weight in encoder.named_parameters() if not weight.requires_grad]
    assert frozen == ["backbone.embeddings.mask_token"]
    assert all(weight.grad is None for weight in encoder.parameters())


def test_a_saved_encoder_of_ours_is_a_start_too(tmp_path):
    encoder = tiny_encoder("cifar", mean=(0.1, 0.2, 0.3))
    encoder.save(tmp_path / "model")
    start = pretrained(tmp_path / "model")
    assert start.fingerprint() == encoder.fingerprint()
    assert all(weight.requires_grad for weight in start.parameters())
    images = some_images(3)
    assert np.array_equal(start.encode(images), encoder.encode(images))
    wider = pretrained(tmp_path / "model", size=24)
    assert (wider.size, wider.mean) == (24, (0.1, 0.2, 0.3))
    assert wider.encode(images).shape == (3, 16)


def test_a_saved_encoders_pooling_stays(tmp_path):
    tiny_encoder("vit_cls").save(tmp_path / "model")
    assert pretrained(tmp_path / "model").pooling == "cls"
    assert pretrained(tmp_path / "model", pooling="mean").pooling == "mean"


def test_without_a_processor_the_settings_must_say_it_all(vit_folder):
    (vit_folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"give encoder\.size, \.mean and \.std"):
        pretrained(vit_folder, size=12)
    encoder = pretrained(vit_folder, size=12, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert encoder.dim == 8


def test_a_size_the_model_cannot_take_is_refused(vit_folder):
    with pytest.raises(InputError, match="ViTModel cannot embed images of 16 x 16: Input image size"):
        pretrained(vit_folder, size=16)


def test_pooling_of_maps_is_refused(tmp_path):
    tiny_encoder("resnet").save(tmp_path / "model")
    with pytest.raises(InputError, match=r"encoder\.pooling = 'cls' has no effect: ResNetModel gives maps"):
        pretrained(tmp_path / "model", pooling="cls")


def test_what_is_no_model_of_images_is_refused(tmp_path, bert_folder):
    with pytest.raises(InputError, match="BertModel takes input_ids, not images"):
        pretrained(bert_folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"encoder\.path '.*empty': cannot be loaded"):
        pretrained(tmp_path / "empty")
    with pytest.raises(InputError, match="no such folder"):
        pretrained(tmp_path / "absent")
