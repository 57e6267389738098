import importlib.util
import sys

import pytest
import torch

import retrieval_cl.core
from retrieval_cl.core import kernels
from retrieval_cl.core.kernels import available


def test_without_triton_there_are_no_kernels(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not available(torch.device("cpu")) and not available(torch.device("cuda"))


def test_a_cpu_has_kernels_only_where_triton_interprets(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not available(torch.device("cpu"))


def test_these_tests_have_kernels(device):
    pytest.importorskip("triton", reason="the kernels are Triton code: pip install 'retrieval-cl[kernels]'")
    assert available(device)


def test_the_folder_is_imported_without_triton(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("retrieval_cl.core.kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    # Importing sets this name; it is put back afterwards.
    monkeypatch.setattr(retrieval_cl.core, "kernels", kernels)
    # An import of triton would fail now.
    monkeypatch.setitem(sys.modules, "triton", None)
    again = importlib.import_module("retrieval_cl.core.kernels")
    assert not again.available(torch.device("cpu"))
