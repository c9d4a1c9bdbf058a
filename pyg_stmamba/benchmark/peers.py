r"""What users have besides this package; imported where it is used, none of it is needed."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.nn import SpatialGAT
from pyg_stmamba.ops import causal_conv1d, selective_scan
from pyg_stmamba.ops.backend import missing

from .contender import OURS, Layout
from .torch_block import (
    DenseGATOverSlices,
    LoopMamba,
    RepeatedGAT,
    RepeatedGATByTorchScatter,
    loop_scan,
)

SLICES_FIRST = dict.fromkeys(("x", "y"), "n b t c -> b t n c")
TIME_LAST = dict.fromkeys(("u", "delta", "B", "C", "z", "x", "y"), "r t d -> r d t")


class Peer(NamedTuple):
    r"""A peer, and where it runs.

    Args:
        name (str): Its name.
        make (callable): The function to measure, or what makes the module to measure.
        layout (Mapping[str, str], optional): Its layout of inputs and output, see
            :class:`~pyg_stmamba.benchmark.contender.Contender`. (default: that of ours)
        needs (tuple, optional): A module, and a function that must be in it.
            (default: :obj:`()`)
        devices (tuple of str, optional): Where it is measured.
            (default: :obj:`("cpu", "cuda")`)
        most_steps (int, optional): The steps up to which it is measured.
            (default: :obj:`None`)
        largest_tensor (int, optional): The bytes of its largest tensor up to which it is measured,
            of one that would take minutes beside a faster peer. (default: :obj:`None`)
        one_pass (bool, optional): Whether it keeps no state of every step.
            (default: :obj:`False`)
    """

    name: str
    make: Callable[..., Any]
    layout: Layout = OURS
    needs: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    most_steps: int | None = None
    largest_tensor: int | None = None
    one_pass: bool = False

    def reasons_against(self, device: torch.device, steps: int) -> list[str]:
        r"""Why it is not measured here."""
        if device.type not in self.devices:
            return [f"it is measured on {' and '.join(self.devices)} only"]
        reasons = missing(*self.needs) if self.needs else []
        if self.most_steps is not None and steps > self.most_steps:
            reasons.append(f"it is measured up to {self.most_steps} steps")
        return reasons


def compiled_loop_scan(**inputs: Tensor) -> Tensor:
    return _compiled(loop_scan)(**inputs)


@functools.cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function, fullgraph=True)


def mambapy_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    scan = importlib.import_module("mambapy.pscan").pscan
    delta = F.softplus(delta + delta_bias)
    decay = torch.exp(delta.unsqueeze(-1) * A)
    state = scan(decay, (delta * u).unsqueeze(-1) * B.unsqueeze(-2))
    return ((state @ C.unsqueeze(-1)).squeeze(-1) + D * u) * F.silu(z)


def mamba_ssm_scan(**inputs: Tensor) -> Tensor:
    module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    return module.selective_scan_fn(**inputs, delta_softplus=True)


def triton_scan(**inputs: Any) -> Any:
    return selective_scan(**inputs, delta_softplus=True, implementation="triton")


def triton_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
    return causal_conv1d(x, weight, bias, "silu", implementation="triton")


def triton_gat(in_channels: int, out_channels: int, heads: int) -> nn.Module:
    return SpatialGAT(in_channels, out_channels, heads, implementation="triton")


def torch_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    channels, width = weight.shape
    y = F.conv1d(x, weight.unsqueeze(1), bias, padding=width - 1, groups=channels)
    return F.silu(y[..., : x.size(-1)])


def package_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    module = importlib.import_module("causal_conv1d")
    return module.causal_conv1d_fn(x, weight, bias, activation="silu")


def loop_mamba(channels: int) -> nn.Module:
    return LoopMamba(channels)


def mambapy_mamba(channels: int) -> nn.Module:
    module = importlib.import_module("mambapy.mamba")
    return module.MambaBlock(module.MambaConfig(d_model=channels, n_layers=1))


def hugging_face_mamba(channels: int) -> nn.Module:
    # It reports that it runs as a torch program, which is what it is measured as.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    module = importlib.import_module("transformers.models.mamba.modeling_mamba")
    config = module.MambaConfig(hidden_size=channels, num_hidden_layers=1, use_mambapy=False)
    return module.MambaMixer(config, layer_idx=0)


def mamba_ssm_mamba(channels: int) -> nn.Module:
    return importlib.import_module("mamba_ssm").Mamba(channels)


SLOW = 2**29
_CONV_LAYOUT = {name: TIME_LAST[name] for name in ("x", "y")}
_TRITON = ("triton", "jit")
_MAMBA_SSM = ("mamba_ssm.ops.selective_scan_interface", "selective_scan_cuda")

SCANS = (
    Peer("mamba-ssm", mamba_ssm_scan, TIME_LAST, _MAMBA_SSM, ("cuda",), one_pass=True),
    # Our own, as long as it is chosen by name only.
    Peer("triton", triton_scan, OURS, _TRITON, ("cuda",), one_pass=True),
    Peer("torch loop", loop_scan),
    Peer("torch loop, compiled", compiled_loop_scan, devices=("cuda",), most_steps=16),
    Peer(
        "mambapy",
        mambapy_scan,
        needs=("mambapy.pscan", "pscan"),
        devices=("cpu",),
        largest_tensor=SLOW,
    ),
)
CONVS = (
    Peer("triton", triton_conv, OURS, _TRITON, ("cuda",), one_pass=True),
    Peer("torch conv1d", torch_conv, _CONV_LAYOUT, one_pass=True),
    Peer(
        "causal-conv1d",
        package_conv,
        _CONV_LAYOUT,
        ("causal_conv1d", "causal_conv1d_fn"),
        ("cuda",),
        one_pass=True,
    ),
)
MAMBAS = (
    Peer("mamba_ssm.Mamba", mamba_ssm_mamba, OURS, _MAMBA_SSM, ("cuda",), one_pass=True),
    Peer("torch loop", loop_mamba),
    Peer(
        "mambapy",
        mambapy_mamba,
        OURS,
        ("mambapy.mamba", "MambaBlock"),
        ("cpu",),
        largest_tensor=SLOW,
    ),
    Peer(
        "MambaMixer",
        hugging_face_mamba,
        OURS,
        ("transformers.models.mamba.modeling_mamba", "MambaMixer"),
        ("cpu",),
        largest_tensor=SLOW,
    ),
)
GATS = (
    Peer("GATConv", RepeatedGAT, SLICES_FIRST),
    Peer(
        "GATConv, torch-scatter",
        RepeatedGATByTorchScatter,
        SLICES_FIRST,
        ("torch_scatter", "scatter"),
    ),
)
DENSE_GAT = Peer(
    "DenseGATConv",
    DenseGATOverSlices,
    SLICES_FIRST | dict.fromkeys(("att_src", "att_dst"), "1 h c -> 1 1 h c"),
)
TRITON_GAT = Peer("triton", triton_gat, OURS, _TRITON, ("cuda",), one_pass=True)
