import importlib
import warnings
from types import ModuleType

import pytest
import torch


@pytest.fixture
def performer_pytorch() -> ModuleType:
    """The package, which imports what is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("performer_pytorch")
        return importlib.import_module("performer_pytorch.performer_pytorch")


@pytest.fixture
def triton_device(monkeypatch) -> str:
    """The device whose tensors the Triton kernels take: a GPU, or a CPU through Triton's
    interpreter, which has to be asked for before a kernel is imported."""
    pytest.importorskip("triton", reason="triton cannot be imported")
    if torch.cuda.is_available():
        return "cuda"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for op in ("causal_conv1d", "graph_attention", "selective_scan"):
        importlib.import_module(f"pyg_stmamba.ops.kernels.{op}_gpu")
    return "cpu"
