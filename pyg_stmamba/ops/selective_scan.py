r"""The selective state space recurrence of Mamba."""

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
from .fused_scan import (
    fused_scan_on_cpu,
    fused_scan_on_gpu,
    reasons_against_fused_scan_on_cpu,
    reasons_against_fused_scan_on_gpu,
)
from .tiled_scan import tiled_scan


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    return_last_state: bool = False,
    implementation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""The selective scan from the `"Mamba: Linear-Time Sequence Modeling with Selective State
    Spaces" <https://arxiv.org/abs/2312.00752>`_ paper, row by row over time.

    .. math::
        \mathbf{h}_t &= \exp(\Delta_t \mathbf{A}) \odot \mathbf{h}_{t-1}
        + (\Delta_t \odot \mathbf{u}_t) \mathbf{B}_t^{\top}

        \mathbf{y}_t &= (\mathbf{h}_t \mathbf{C}_t + \mathbf{D} \odot \mathbf{u}_t)
        \odot \mathrm{SiLU}(\mathbf{z}_t)

    with :math:`\Delta_t = \mathrm{softplus}(\delta_t + \mathbf{b})` when :obj:`delta_softplus` is
    set. The state is kept in float32 (float64 for float64 input) whatever the dtype of the input.

    Args:
        u (torch.Tensor): The input.
        delta (torch.Tensor): The step sizes, one per channel.
        A (torch.Tensor): The decay rates, negative for a stable recurrence.
        B (torch.Tensor): The weights of the input into the states.
        C (torch.Tensor): The weights of the states into the output.
        D (torch.Tensor, optional): The weights of the skip connection. (default: :obj:`None`)
        z (torch.Tensor, optional): The gate, before its SiLU. (default: :obj:`None`)
        delta_bias (torch.Tensor, optional): Added to the step sizes. (default: :obj:`None`)
        delta_softplus (bool, optional): If set to :obj:`True`, the step sizes pass through a
            softplus after the bias. (default: :obj:`False`)
        initial_state (torch.Tensor, optional): The state before the first step; zeros if not
            given. (default: :obj:`None`)
        mask (torch.Tensor, optional): Boolean, :obj:`True` where a step was observed. A masked
            step leaves the state unchanged, gives the output 0 and passes no gradient.
            (default: :obj:`None`)
        return_last_state (bool, optional): If set to :obj:`True`, also returns the state after
            the last step. (default: :obj:`False`)
        implementation (str, optional): The implementation to run; the best one for these tensors
            if not given. (default: :obj:`None`)

    Shapes:
        - **input:** :obj:`u`, :obj:`delta`, :obj:`z` :math:`(*, T, D)`, :obj:`A` :math:`(D, N)`,
          :obj:`B`, :obj:`C` :math:`(*, T, N)`, :obj:`D`, :obj:`delta_bias` :math:`(D)`,
          :obj:`initial_state` :math:`(*, D, N)`, :obj:`mask` :math:`(*, T)`
        - **output:** :math:`(*, T, D)` in the dtype of :obj:`u`, or
          :math:`((*, T, D), (*, D, N))` if :obj:`return_last_state` is set

    Raises:
        ValueError: If shapes do not fit each other, dtypes are wrong, devices differ, or the
            implementation is unknown or cannot run on these tensors.
    """
    _check(u, delta, A, B, C, D, z, delta_bias, initial_state, mask)
    arguments = (u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, mask)
    chosen = choose(
        "selective_scan", IMPLEMENTATIONS, implementation, *arguments, return_last_state
    )
    y, last_state = chosen.run(*arguments, return_last_state)
    return y if last_state is None else (y, last_state)


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    return_last_state: bool = True,
) -> tuple[Tensor, Tensor | None]:
    r"""The recurrence of :func:`selective_scan`, one step after the other."""
    dtype, wide = u.dtype, torch.promote_types(u.dtype, torch.float32)
    u, delta, A, B, C = u.to(wide), delta.to(wide), A.to(wide), B.to(wide), C.to(wide)
    observed = torch.ones_like(u[..., 0], dtype=torch.bool) if mask is None else mask
    # With zeros in place of what a masked step holds, be it NaN, its output and all gradients
    # through it are 0.
    u, delta, B, C = (torch.where(observed.unsqueeze(-1), x, 0.0) for x in (u, delta, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.to(wide)
    if delta_softplus:
        delta = F.softplus(delta)
    if initial_state is None:
        state = u.new_zeros(u.shape[:-2] + A.shape)
    else:
        state = initial_state.to(wide)

    outputs = []
    for u_t, delta_t, B_t, C_t, observed_t in zip(
        u.unbind(-2), delta.unbind(-2), B.unbind(-2), C.unbind(-2), observed.unbind(-1)
    ):
        decay = torch.exp(delta_t.unsqueeze(-1) * A)
        after = decay * state + (delta_t * u_t).unsqueeze(-1) * B_t.unsqueeze(-2)
        state = torch.where(observed_t[..., None, None], after, state)
        outputs.append((state * C_t.unsqueeze(-2)).sum(-1))
    y = torch.stack(outputs, dim=-2) if outputs else torch.zeros_like(u)

    if D is not None:
        y = y + D.to(wide) * u
    if z is not None:
        y = y * F.silu(torch.where(observed.unsqueeze(-1), z.to(wide), 0.0))
    return y.to(dtype), state if return_last_state else None


def _run_mamba_ssm(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    return_last_state: bool = True,
) -> tuple[Tensor, Tensor | None]:
    module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    result = module.selective_scan_fn(
        _channels_before_time(u),
        _channels_before_time(delta.to(u.dtype)),
        A.float(),
        _channels_before_time(B.to(u.dtype)),
        _channels_before_time(C.to(u.dtype)),
        None if D is None else D.float(),
        None if z is None else _channels_before_time(z.to(u.dtype)),
        None if delta_bias is None else delta_bias.float(),
        delta_softplus,
        return_last_state,
    )
    y, last_state = result if return_last_state else (result, None)
    if last_state is not None:
        last_state = last_state.reshape(u.shape[:-2] + A.shape).float()
    return y.transpose(1, 2).reshape(u.shape), last_state


def _channels_before_time(x: Tensor) -> Tensor:
    return x.reshape(-1, *x.shape[-2:]).transpose(1, 2).contiguous()


def _reasons_against_mamba_ssm(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    return_last_state: bool = False,
) -> list[str]:
    reasons = []
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    if return_last_state and torch.is_grad_enabled() and _any_requires_grad(inputs):
        reasons.append("it passes no gradient through the last state")
    if initial_state is not None:
        reasons.append("it takes no initial state")
    if mask is not None:
        reasons.append("it takes no mask")
    if A.size(-1) > 256:
        reasons.append(f"it keeps at most 256 states a channel, got {A.size(-1)}")
    if u.numel() == 0:
        reasons.append(f"it runs on no empty input, got shape {tuple(u.shape)}")
    return reasons + reasons_against_compiled(inputs, _MAMBA_SSM, "selective_scan_cuda")


def _any_requires_grad(tensors: tuple[Tensor | None, ...]) -> bool:
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


_MAMBA_SSM = "mamba_ssm.ops.selective_scan_interface"

IMPLEMENTATIONS = (
    Implementation("mamba_ssm", _run_mamba_ssm, _reasons_against_mamba_ssm),
    Implementation("numba", fused_scan_on_cpu, reasons_against_fused_scan_on_cpu),
    Implementation("torch", tiled_scan, no_reasons),
    # By name alone, as long as it has not been measured on a GPU.
    Implementation("triton", fused_scan_on_gpu, reasons_against_fused_scan_on_gpu),
    Implementation("reference", selective_scan_reference, no_reasons),
)


def example_inputs(device: str) -> tuple[Tensor, ...]:
    r"""Small inputs on which the implementations are asked whether they run on :obj:`device`."""
    rows = torch.ones(2, 3, 4, device=device)
    return rows, rows, -rows[0, 0, :, None], rows[..., :1], rows[..., :1]


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    mask: Tensor | None,
) -> None:
    if u.dim() < 2 or not u.is_floating_point():
        raise ValueError(f"u must be floating point [..., T, D], got {u.dtype} {list(u.shape)}")
    if A.dim() != 2 or A.size(0) != u.size(-1):
        raise ValueError(f"A must be [D, N] with D = {u.size(-1)}, got {list(A.shape)}")
    check_floating_point(
        delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias, initial_state=initial_state
    )
    check_devices(
        u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias,
        initial_state=initial_state, mask=mask,
    )  # fmt: skip
    rows, channels, states = u.shape[:-1], u.shape[-1:], A.shape[1:]
    expected: list[tuple[str, Tensor | None, Any]] = [
        ("delta", delta, u.shape),
        ("B", B, rows + states),
        ("C", C, rows + states),
        ("D", D, channels),
        ("z", z, u.shape),
        ("delta_bias", delta_bias, channels),
        ("initial_state", initial_state, u.shape[:-2] + A.shape),
        ("mask", mask, rows),
    ]
    for name, tensor, shape in expected:
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"{name} must be {list(shape)} beside u {list(u.shape)} and A {list(A.shape)}, "
                f"got {list(tensor.shape)}"
            )
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask must be torch.bool (True = observed), got {mask.dtype}")
