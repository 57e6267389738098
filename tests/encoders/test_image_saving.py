import ast
import inspect
import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from image_models import TINY, some_images, tiny_encoder

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import read_json, write_json
from retrieval_cl.encoders import image_cifar_resnet, image_convnet
from retrieval_cl.encoders.batch_norm import SplitBatchNorm, convert_norms
from retrieval_cl.encoders.load_image import load_image_encoder

BARE_SCRIPT = """
import sys
from pathlib import Path

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "retrieval_cl":
            raise ImportError(name)

sys.meta_path.insert(0, Block())
import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

for folder in sorted(Path(sys.argv[1]).iterdir()):
    stored = np.load(folder / "given.npz")
    needs_code = folder.name in ("convnet", "cifar")
    model = AutoModel.from_pretrained(folder / "model", trust_remote_code=needs_code)
    # The layout that retrieval-cl computes in; the two models of its own bring themselves into it.
    layout = torch.contiguous_format if needs_code else torch.channels_last
    pixels = torch.from_numpy(stored["pixels"]).contiguous(memory_format=layout)
    with torch.inference_mode():
        output = model(pixels)
    maps = output.last_hidden_state.dim() == 4
    found = {"features": output.pooler_output.flatten(1) if maps else output.last_hidden_state}
    processor = AutoImageProcessor.from_pretrained(folder / "model")
    images = [Image.fromarray(image) for image in stored["images"]]
    found["prepared"] = processor(images, return_tensors="np")["pixel_values"]
    np.savez(folder / "found.npz", **found)
assert not any(name.startswith("retrieval_cl") for name in sys.modules)
"""


def trained(kind, **settings):
    """An encoder whose weights and statistics no seed could give."""
    encoder = tiny_encoder(kind, **settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for value in encoder.backbone.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand_like(value) / 10)
    return encoder


@pytest.mark.slow
def test_a_script_without_this_package_gets_equal_features(tmp_path):
    kinds = ("convnet", "resnet", "bottleneck", "cifar", "vit")
    encoders = {kind: trained(kind, mean=(0.2, 0.4, 0.6)) for kind in kinds}
    images = some_images(3, 40, 29)
    for kind, encoder in encoders.items():
        encoder.save(tmp_path / "all" / kind / "model")
        pixels = encoder.prepare(images.take(np.arange(3))).contiguous()
        np.savez(tmp_path / "all" / kind / "given.npz", pixels=pixels.numpy(), images=images.pixels)
    subprocess.run(
        [sys.executable, "-I", "-c", BARE_SCRIPT, str(tmp_path / "all")],
        check=True,
        cwd=tmp_path,
        # Beside the cache of whoever runs the tests, and with as many threads as here: bits depend on them.
        env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    for kind, encoder in encoders.items():
        given, found = (np.load(tmp_path / "all" / kind / f"{name}.npz") for name in ("given", "found"))
        with torch.inference_mode():
            pixels = torch.from_numpy(given["pixels"])
            output = encoder.backbone(pixels.contiguous(memory_format=torch.channels_last))
            features = encoder.features(pixels)
        expected = output.last_hidden_state if kind == "vit" else features
        assert np.array_equal(found["features"], expected.numpy()), kind
        # Pillow rounds to whole levels after each direction.
        assert np.abs(found["prepared"] - given["pixels"]).max() * 0.5 * 255 < 1.01, kind


@pytest.mark.parametrize("module", [image_convnet, image_cifar_resnet])
def test_a_model_file_that_folders_carry_needs_transformers_alone(module):
    tree = ast.parse(inspect.getsource(module))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported - {"torch", "transformers"} <= sys.stdlib_module_names


@pytest.mark.parametrize("kind", TINY)
def test_a_saved_encoder_comes_back_bit_for_bit(tmp_path, kind):
    encoder = trained(kind, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    encoder.save(tmp_path / "model")
    loaded = load_image_encoder(tmp_path / "model")
    assert loaded.fingerprint() == encoder.fingerprint()
    assert (loaded.size, loaded.mean, loaded.std) == (encoder.size, encoder.mean, encoder.std)
    assert (loaded.dim, loaded.pooling) == (encoder.dim, encoder.pooling)
    images = some_images(5)
    assert np.array_equal(loaded.encode(images), encoder.encode(images))
    assert not loaded.training
    loaded.save(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "manifest.json", "preprocessor_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes(), name


@pytest.mark.parametrize("kind", ["convnet", "cifar"])
def test_an_encoder_trained_with_another_kind_of_batch_norm_comes_back_with_torchs(tmp_path, kind):
    encoder = trained(kind)
    convert_norms(encoder, partial(SplitBatchNorm, num_splits=2))
    encoder.train()
    encoder.features(torch.randn(4, 3, encoder.size, encoder.size))
    encoder.save(tmp_path / "model")
    loaded = load_image_encoder(tmp_path / "model")
    assert not any(isinstance(module, SplitBatchNorm) for module in loaded.modules())
    assert loaded.fingerprint() == encoder.fingerprint()
    assert np.array_equal(loaded.encode(some_images(3)), encoder.encode(some_images(3)))


@pytest.mark.parametrize(
    ("kind", "file"), [("convnet", "image_convnet.py"), ("cifar", "image_cifar_resnet.py"), ("vit", None)]
)
def test_only_what_transformers_does_not_know_brings_its_file(tmp_path, kind, file):
    tiny_encoder(kind).save(tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    always = {"config.json", "model.safetensors", "manifest.json", "preprocessor_config.json", "README.md"}
    assert names == always | ({file} if file else set())
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf8")
    assert ("trust_remote_code=True" in card) == (file is not None)
    for path in (tmp_path / "model").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path


def test_loading_runs_no_code_of_the_folder(tmp_path):
    encoder = tiny_encoder("convnet")
    encoder.save(tmp_path / "model")
    (tmp_path / "model" / "image_convnet.py").write_text("raise SystemExit('ran')", encoding="utf8")
    assert load_image_encoder(tmp_path / "model").fingerprint() == encoder.fingerprint()


def test_a_half_written_folder_is_never_taken_for_a_whole_one(tmp_path):
    encoder = tiny_encoder("convnet")
    encoder.save(tmp_path / "model")
    (tmp_path / "model" / "manifest.json").rename(tmp_path / "manifest.json")
    with pytest.raises(InputError, match=r"no manifest\.json; it is half written"):
        load_image_encoder(tmp_path / "model")
    (tmp_path / "manifest.json").rename(tmp_path / "model" / "manifest.json")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_image_encoder(tmp_path / "model")


def test_a_save_that_fails_leaves_the_old_image_encoder(tmp_path, monkeypatch):
    old = tiny_encoder("convnet")
    old.save(tmp_path / "model")

    def fill_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retrieval_cl.encoders.image.write_manifest", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        tiny_encoder("vit").save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert load_image_encoder(tmp_path / "model").fingerprint() == old.fingerprint()


@pytest.mark.parametrize("change", [{"mean": None}, {"std": [0.5]}, {"size": "big"}])
def test_a_broken_manifest_of_an_image_encoder_is_named(tmp_path, change):
    tiny_encoder("convnet").save(tmp_path / "model")
    manifest = tmp_path / "model" / "manifest.json"
    write_json(manifest, read_json(manifest) | change)
    with pytest.raises(InputError, match=r"manifest\.json: needs size, mean, std \(3 numbers each\)"):
        load_image_encoder(tmp_path / "model")


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path):
    tiny_encoder("convnet").save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf8"))
    write_json(tmp_path / "model" / "config.json", config | {"depths": [1, 3]})
    with pytest.raises(
        InputError, match=r"cannot be loaded: \d weights of ConvNetModel are missing, such as stages\.1\.2"
    ):
        load_image_encoder(tmp_path / "model")
