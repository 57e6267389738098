import pytest
import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.training.device import cast_to, resolve_precision, start_accelerator

CPU = torch.device("cpu")


@pytest.mark.parametrize("has_units", [True, False])
def test_auto_takes_bf16_where_the_processor_has_units(monkeypatch, has_units):
    found = {"avx512_bf16": has_units, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert resolve_precision("auto", CPU) == ("bf16" if has_units else "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_named_precision_is_taken(precision):
    assert resolve_precision(precision, CPU) == precision


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_run_in_the_precision(precision, dtype):
    layer = torch.nn.Linear(2, 2)
    with cast_to(precision, CPU):
        assert layer(torch.ones(1, 2)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_more_processes_than_accelerate_sees_are_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    # accelerate's state lasts as long as the process, so it stays alone whatever the launcher says later.
    assert start_accelerator().num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"WORLD_SIZE is 2, but accelerate sees 1 process"):
        start_accelerator()
