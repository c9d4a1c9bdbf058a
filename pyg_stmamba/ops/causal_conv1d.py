r"""The short causal depthwise convolution in front of a selective scan."""

import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import (
    Implementation,
    check_devices,
    check_floating_point,
    choose,
    no_reasons,
    reasons_against_compiled,
)
from .fused_conv import (
    fused_conv_on_cpu,
    fused_conv_on_gpu,
    reasons_against_fused_conv_on_cpu,
    reasons_against_fused_conv_on_gpu,
)
from .tiled_conv import tiled_conv


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    implementation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""A depthwise convolution over time in which a step sees itself and the :math:`K - 1` steps
    before it.

    .. math::
        \mathbf{y}_t = \sigma \left( \mathbf{b} + \sum_{k=0}^{K-1} \mathbf{w}_k \odot
        \mathbf{x}_{t-K+1+k} \right)

    Args:
        x (torch.Tensor): The input.
        weight (torch.Tensor): The weights, oldest step first.
        bias (torch.Tensor, optional): Added to the sum. (default: :obj:`None`)
        activation (str, optional): The non-linearity :math:`\sigma`, :obj:`"silu"` or
            :obj:`None`. (default: :obj:`None`)
        initial_state (torch.Tensor, optional): The :math:`K - 1` inputs before the first step;
            zeros if not given. (default: :obj:`None`)
        return_final_state (bool, optional): If set to :obj:`True`, also returns the last
            :math:`K - 1` inputs. (default: :obj:`False`)
        implementation (str, optional): The implementation to run; the best one for these tensors
            if not given. (default: :obj:`None`)

    Shapes:
        - **input:** :obj:`x` :math:`(*, T, C)`, :obj:`weight` :math:`(C, K)`, :obj:`bias`
          :math:`(C)`, :obj:`initial_state` :math:`(*, K - 1, C)`
        - **output:** :math:`(*, T, C)`, or :math:`((*, T, C), (*, K - 1, C))` if
          :obj:`return_final_state` is set

    Raises:
        ValueError: If shapes do not fit each other, dtypes are wrong, devices differ, the
            activation is unknown, or the implementation is unknown or cannot run on these tensors.
    """
    _check(x, weight, bias, activation, initial_state)
    arguments = (x, weight, bias, activation, initial_state)
    chosen = choose("causal_conv1d", IMPLEMENTATIONS, implementation, *arguments)
    y = chosen.run(*arguments)
    if not return_final_state:
        return y
    past = weight.size(-1) - 1
    seen = min(past, x.size(-2))
    last = _padded(x.narrow(-2, x.size(-2) - seen, seen), weight, initial_state)
    return y, last.narrow(-2, seen, past).clone()


def causal_conv1d_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
) -> Tensor:
    r"""The sum of :func:`causal_conv1d`, one weight after the other."""
    wide = torch.promote_types(x.dtype, torch.float32)
    padded = _padded(x, weight, initial_state).to(wide)
    y = torch.zeros_like(x, dtype=wide)
    for k, weight_k in enumerate(weight.to(wide).unbind(-1)):
        y = y + weight_k * padded.narrow(-2, k, x.size(-2))
    if bias is not None:
        y = y + bias.to(wide)
    if activation == "silu":
        y = F.silu(y)
    return y.to(x.dtype)


def _padded(x: Tensor, weight: Tensor, initial_state: Tensor | None) -> Tensor:
    if initial_state is None:
        initial_state = x.new_zeros(*x.shape[:-2], weight.size(-1) - 1, x.size(-1))
    return torch.cat([initial_state.to(x.dtype), x], dim=-2)


def _run_package(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
) -> Tensor:
    module = importlib.import_module("causal_conv1d")
    rows = x.reshape(-1, *x.shape[-2:]).transpose(1, 2)
    if initial_state is not None:
        initial_state = initial_state.to(x.dtype).reshape(-1, *initial_state.shape[-2:])
        initial_state = initial_state.transpose(1, 2)
        rows = rows.transpose(1, 2).contiguous().transpose(1, 2)
    else:
        rows = rows.contiguous()
    y = module.causal_conv1d_fn(
        rows, weight, bias, initial_states=initial_state, activation=activation
    )
    return y.transpose(1, 2).reshape(x.shape)


def _reasons_against_package(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
) -> list[str]:
    reasons = []
    if not 2 <= weight.size(-1) <= 4:
        reasons.append(f"its width is 2 to 4, got {weight.size(-1)}")
    if x.numel() == 0:
        reasons.append(f"it runs on no empty input, got shape {tuple(x.shape)}")
    return reasons + reasons_against_compiled((x, weight), "causal_conv1d", "causal_conv1d_fn")


IMPLEMENTATIONS = (
    Implementation("causal_conv1d", _run_package, _reasons_against_package),
    Implementation("numba", fused_conv_on_cpu, reasons_against_fused_conv_on_cpu),
    Implementation("torch", tiled_conv, no_reasons),
    # By name alone, as long as it has not been measured on a GPU.
    Implementation("triton", fused_conv_on_gpu, reasons_against_fused_conv_on_gpu),
    Implementation("reference", causal_conv1d_reference, no_reasons),
)


def example_inputs(device: str) -> tuple[Tensor, ...]:
    r"""Small inputs on which the implementations are asked whether they run on :obj:`device`."""
    return torch.ones(2, 3, 4, device=device), torch.ones(4, 4, device=device)


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    initial_state: Tensor | None,
) -> None:
    if x.dim() < 2 or not x.is_floating_point():
        raise ValueError(f"x must be floating point [..., T, C], got {x.dtype} {list(x.shape)}")
    if weight.dim() != 2 or weight.size(0) != x.size(-1) or weight.size(1) < 1:
        raise ValueError(f"weight must be [C, K] with C = {x.size(-1)}, got {list(weight.shape)}")
    check_floating_point(weight=weight, bias=bias, initial_state=initial_state)
    check_devices(x=x, weight=weight, bias=bias, initial_state=initial_state)
    if activation not in (None, "silu"):
        raise ValueError(f"unknown activation {activation!r}; the choices are None, 'silu'")
    state = (*x.shape[:-2], weight.size(1) - 1, x.size(-1))
    expected: list[tuple[str, Tensor | None, Any]] = [
        ("bias", bias, weight.shape[:1]),
        ("initial_state", initial_state, state),
    ]
    for name, tensor, shape in expected:
        if tensor is not None and tuple(tensor.shape) != tuple(shape):
            raise ValueError(
                f"{name} must be {list(shape)} beside x {list(x.shape)} and weight "
                f"{list(weight.shape)}, got {list(tensor.shape)}"
            )
