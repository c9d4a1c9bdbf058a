r"""What the ops with kernels of their own share: how a kernel is found, and whether it can run."""

import importlib
import os
from typing import Any

import torch
from torch import Tensor

from .backend import failed_trial


def load_kernel(op: str, device: str) -> Any:
    r"""Returns the module that computes :obj:`op` on a :obj:`"cpu"` (Numba) or on a :obj:`"gpu"`
    (Triton)."""
    return importlib.import_module(_module(op, device))


def reasons_against_cpu_kernel(op: str, x: Tensor) -> list[str]:
    r"""Why the Numba kernel of :obj:`op` cannot run on :obj:`x`."""
    reasons = []
    if x.device.type != "cpu":
        reasons.append(f"it runs on a CPU, got tensors on {x.device}")
    if x.dtype == torch.float64:
        reasons.append("it computes in float32, got float64")
    if x.numel() == 0:
        reasons.append(f"it runs on no empty input, got shape {tuple(x.shape)}")
    # Last, so that nothing is compiled that would not run.
    return reasons or failed_trial(op, "numba", _module(op, "cpu"), x)


def reasons_against_gpu_kernel(op: str, x: Tensor) -> list[str]:
    r"""Why the Triton kernel of :obj:`op` cannot run on :obj:`x`."""
    reasons = []
    if not x.is_cuda and not _triton_interprets():
        reasons.append(f"it runs on a GPU, got tensors on {x.device}")
    if x.dtype == torch.float64:
        reasons.append("it computes in float32, got float64")
    if x.numel() == 0:
        reasons.append(f"it runs on no empty input, got shape {tuple(x.shape)}")
    return reasons or failed_trial(op, "triton", _module(op, "gpu"), x)


def _module(op: str, device: str) -> str:
    return f"{__package__}.kernels.{op}_{device}"


@torch.compiler.assume_constant_result
def _triton_interprets() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
