r"""What the ops with a Numba kernel share: whether it can run, and arrays in place of tensors."""

from typing import Any

import torch
from torch import Tensor

from .backend import missing


def reasons_against_cpu_kernel(x: Tensor, module: str) -> list[str]:
    r"""Why the kernel in :obj:`pyg_stmamba.ops.kernels.<module>` cannot run on :obj:`x`."""
    reasons = missing(f"{__package__}.kernels.{module}")
    if x.device.type != "cpu":
        reasons.append(f"it runs on a CPU, got tensors on {x.device}")
    if x.dtype == torch.float64:
        reasons.append("it computes in float32, got float64")
    if x.numel() == 0:
        reasons.append(f"it runs on no empty input, got shape {tuple(x.shape)}")
    return reasons


def array(x: Tensor | None, rank: int = 3) -> Any:
    r"""The memory of a tensor; an empty array of a fixed rank stands for :obj:`None`, so that a
    kernel is compiled once for both."""
    return torch.empty([0] * rank).numpy() if x is None else x.detach().numpy()
