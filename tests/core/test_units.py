import pytest
import torch

from retrieval_cl.core.units import multiplies

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_a_processor_multiplies_what_it_has_units_for(monkeypatch, kind):
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    for name in (f"avx512_{kind}", f"amx_{kind}"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {name: True})
        assert [key for key, dtype in dtypes.items() if multiplies(dtype, CPU)] == [kind]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512": True})
    assert not multiplies(dtypes[kind], CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_device_multiplies_wider_types(dtype):
    assert multiplies(dtype, CPU) and multiplies(dtype, torch.device("meta"))
