import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing.vector_files import from_stored, map_file, to_stored


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
def test_values_come_back_from_either_file(tmp_path, ending, dtype):
    vectors = torch.randn(7, 5).to(dtype)
    path = tmp_path / f"v{ending}"
    if ending == ".npy":
        np.save(path, to_stored(vectors))
    else:
        save_file({"vectors": vectors, "ids": torch.arange(7)}, path)
    found = map_file(path)
    assert found.dtype == dtype and torch.equal(found, vectors)


def test_two_raw_bytes_are_bfloat16_too():
    vectors = torch.randn(3, 2).to(torch.bfloat16)
    assert torch.equal(from_stored(to_stored(vectors).view("V2")), vectors)


def test_what_is_no_matrix_of_floats_is_refused(tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(3))
    with pytest.raises(InputError, match=r"int64 of shape \(3,\); expected a matrix of floats"):
        map_file(tmp_path / "ids.npy")
    save_file({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, tmp_path / "two.safetensors")
    with pytest.raises(InputError, match=r"holds 2 matrices \(a, b\); name one"):
        map_file(tmp_path / "two.safetensors")
    with pytest.raises(InputError, match="no tensor 'c'; it holds a, b"):
        map_file(tmp_path / "two.safetensors", tensor="c")
    assert map_file(tmp_path / "two.safetensors", tensor="b").shape == (2, 2)
    with pytest.raises(InputError, match="no such file"):
        map_file(tmp_path / "none.npy")
    with pytest.raises(InputError, match=r"mapped from \.npy and \.safetensors files"):
        map_file(tmp_path / "v.pt")


@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
def test_cut_file_is_refused(tmp_path, ending):
    path = tmp_path / f"v{ending}"
    if ending == ".npy":
        np.save(path, np.zeros((4, 4), np.float32))
    else:
        save_file({"v": torch.zeros(4, 4)}, path)
    whole = path.read_bytes()
    for kept in (len(whole) - 4, 3):
        path.write_bytes(whole[:kept])
        with pytest.raises(InputError, match=str(path)):
            map_file(path)


@pytest.mark.parametrize("dtype", [">f4", np.longdouble])
def test_floats_that_torch_does_not_know_are_refused(tmp_path, dtype):
    np.save(tmp_path / "v.npy", np.zeros((2, 3), dtype))
    with pytest.raises(
        InputError, match="expected a matrix of floats of 16, 32 or 64 bits, lowest byte first"
    ):
        map_file(tmp_path / "v.npy")


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04 an archive"], ids=["text", "npz"])
def test_other_file_of_that_name_is_refused(tmp_path, content):
    (tmp_path / "v.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"v\.npy: no \.npy file"):
        map_file(tmp_path / "v.npy")


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ([], "names no tensors with dtype, shape and data_offsets"),
        ({"v": 1}, "names no tensors"),
        ({"v": {"dtype": "F32"}}, "names no tensors"),
        ({"v": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 20]}}, "gives 20 bytes to F32 of shape"),
        ({"v": {"dtype": "F32", "shape": [2, 3], "data_offsets": [-8, 16]}}, "gives 24 bytes to F32"),
        ({"v": {"dtype": "I64", "shape": [2, 3], "data_offsets": [0, 48]}}, "numbers of type I64"),
    ],
)
def test_broken_header_is_refused(tmp_path, header, part):
    text = json.dumps(header).encode()
    (tmp_path / "v.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(48))
    with pytest.raises(InputError, match=part):
        map_file(tmp_path / "v.safetensors")
