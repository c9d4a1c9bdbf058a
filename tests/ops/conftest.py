import importlib

import pytest
import torch


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
