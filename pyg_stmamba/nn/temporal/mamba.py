from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.temporal.temporal_operator import TemporalOperator
from pyg_stmamba.ops.causal_conv1d import causal_conv1d
from pyg_stmamba.ops.selective_scan import selective_scan


class MambaState(NamedTuple):
    r"""Where a :class:`TemporalMamba` stopped; its size does not depend on the steps seen."""

    conv: Tensor  # [..., d_conv - 1, d_inner]: the last inputs of the convolution
    ssm: Tensor  # [..., d_inner, d_state]: the hidden state h


class TemporalMamba(TemporalOperator):
    r"""The selective state space operator from the `"Mamba: Linear-Time Sequence Modeling with
    Selective State Spaces" <https://arxiv.org/abs/2312.00752>`_ paper, over the time of each node.

    .. math::
        \mathbf{x}, \mathbf{z} &= \mathbf{W}_{in} \mathbf{u}, \qquad
        \mathbf{x} \leftarrow \mathrm{SiLU}(\mathrm{conv}(\mathbf{x})), \qquad
        (\boldsymbol{\delta}, \mathbf{B}, \mathbf{C}) = \mathbf{W}_x \mathbf{x}

        \Delta_t &= \mathrm{softplus}(\mathbf{W}_\Delta \boldsymbol{\delta}_t + \mathbf{b}_\Delta)

        \mathbf{h}_t &= \exp(\Delta_t \mathbf{A}) \, \mathbf{h}_{t-1}
        + \Delta_t \mathbf{B}_t \mathbf{x}_t, \qquad \mathbf{A} = -\exp(\mathbf{A}_{\log})

        \mathbf{y}_t &= \mathbf{W}_{out} \left[ \left( \mathbf{C}_t \cdot \mathbf{h}_t
        + \mathbf{D} \, \mathbf{x}_t \right) \mathrm{SiLU}(\mathbf{z}_t) \right]

    It holds exactly the parameters of :obj:`mamba_ssm.Mamba`, so state dictionaries interchange.

    Args:
        channels (int): Size of each step, in and out.
        d_state (int, optional): States of each inner channel. (default: :obj:`16`)
        d_conv (int, optional): Steps the convolution sees. (default: :obj:`4`)
        expand (int, optional): Inner channels for each channel. (default: :obj:`2`)
        dt_rank (int or str, optional): Rank of the projection to the step size :math:`\Delta`;
            :obj:`"auto"` is a sixteenth of the channels, rounded up. (default: :obj:`"auto"`)
        dt_min (float, optional): Smallest step size at the start. (default: :obj:`0.001`)
        dt_max (float, optional): Largest step size at the start. (default: :obj:`0.1`)
        dt_init (str, optional): Start of the weight of that projection, :obj:`"random"` or
            :obj:`"constant"`. (default: :obj:`"random"`)
        dt_scale (float, optional): Scale of that start. (default: :obj:`1.0`)
        dt_init_floor (float, optional): No step size starts below. (default: :obj:`1e-4`)
        conv_bias (bool, optional): Whether the convolution has a bias. (default: :obj:`True`)
        bias (bool, optional): Whether the projections in and out have a bias.
            (default: :obj:`False`)
        bidirectional (bool, optional): If set to :obj:`True`, a second operator with parameters
            of its own (under :obj:`reverse.`) runs from the last step to the first and both are
            summed; the operator is then not causal. (default: :obj:`False`)
        implementation (str, optional): Forces one implementation of the scan and refuses where it
            cannot run; :obj:`None` takes the fastest that can. (default: :obj:`None`)

    Shapes:
        - **input:** :math:`(*, T, C)`, mask :math:`(*, T)` *(optional)*
        - **output:** :math:`(*, T, C)`
    """

    def __init__(
        self,
        channels: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        bidirectional: bool = False,
        implementation: str | None = None,
    ) -> None:
        super().__init__()
        if dt_init not in ("random", "constant"):
            raise ValueError(f"unknown dt_init {dt_init!r}; choose 'random' or 'constant'")
        self.channels = channels
        self.d_state = d_state
        self.d_conv = d_conv
        self.expand = expand
        self.d_inner = int(expand * channels)
        self.dt_rank = math.ceil(channels / 16) if dt_rank == "auto" else dt_rank
        self.dt_min = dt_min
        self.dt_max = dt_max
        self.dt_init = dt_init
        self.dt_scale = dt_scale
        self.dt_init_floor = dt_init_floor
        self.bidirectional = bidirectional
        self.causal = not bidirectional
        self.implementation = implementation

        self.in_proj = nn.Linear(channels, 2 * self.d_inner, bias=bias)
        self.conv1d = nn.Conv1d(
            self.d_inner,
            self.d_inner,
            d_conv,
            groups=self.d_inner,
            padding=d_conv - 1,
            bias=conv_bias,
        )
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner, bias=True)
        self.A_log = nn.Parameter(torch.empty(self.d_inner, d_state))
        self.D = nn.Parameter(torch.empty(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, channels, bias=bias)
        self._mark_parameters()

        self.reverse: TemporalMamba | None = None
        if bidirectional:
            self.reverse = TemporalMamba(
                channels, d_state, d_conv, expand, dt_rank, dt_min, dt_max, dt_init, dt_scale,
                dt_init_floor, conv_bias, bias, implementation=implementation,
            )  # fmt: skip
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew, as the paper starts them."""
        self.in_proj.reset_parameters()
        self.conv1d.reset_parameters()
        self.x_proj.reset_parameters()
        self.out_proj.reset_parameters()
        with torch.no_grad():
            bound = self.dt_rank**-0.5 * self.dt_scale
            if self.dt_init == "constant":
                self.dt_proj.weight.fill_(bound)
            else:
                self.dt_proj.weight.uniform_(-bound, bound)
            log_min, log_max = math.log(self.dt_min), math.log(self.dt_max)
            dt = torch.empty_like(self.dt_proj.bias).uniform_(log_min, log_max).exp()
            dt = dt.clamp(min=self.dt_init_floor)
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus^-1
            states = torch.arange(1, self.d_state + 1, dtype=torch.float32)
            self.A_log.copy_(states.log().expand_as(self.A_log))
            self.D.fill_(1.0)
        if self.reverse is not None:
            self.reverse.reset_parameters()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y, _ = self._run(x, None, mask, return_state=False)
        if self.reverse is not None:
            flipped = self.reverse(x.flip(-2), None if mask is None else mask.flip(-1))
            y = y + flipped.flip(-2)
        return y

    def prefill(
        self, x: Tensor, state: MambaState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, MambaState]:
        self._check_streams()
        return self._run(x, state, mask, return_state=True)

    def _run(
        self, u: Tensor, state: MambaState | None, mask: Tensor | None, return_state: bool
    ) -> tuple[Tensor, Any]:
        self._check(u, mask, self.channels)
        hidden = None if mask is None else ~mask.unsqueeze(-1)
        if hidden is not None:
            u = u.masked_fill(hidden, 0.0)
        x, z = self.in_proj(u).chunk(2, dim=-1)
        if hidden is not None and self.in_proj.bias is not None:
            x = x.masked_fill(hidden, 0.0)  # as before the start of a series

        conv: Any = causal_conv1d(
            x,
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            "silu",
            initial_state=None if state is None else state.conv,
            return_final_state=return_state,
        )
        x = conv[0] if return_state else conv

        delta, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        # Its bias goes into the softplus. With few columns, the gradient of a weight that lies
        # the other way round in memory takes MKL a tenth of the time.
        delta = delta @ self.dt_proj.weight.t().contiguous()
        wide = torch.promote_types(self.A_log.dtype, torch.float32)
        scan: Any = selective_scan(
            x,
            delta,
            -self.A_log.to(wide).exp(),
            B,
            C,
            self.D,
            z,
            self.dt_proj.bias,
            delta_softplus=True,
            initial_state=None if state is None else state.ssm,
            mask=mask,
            return_last_state=return_state,
            implementation=self.implementation,
        )
        y = self.out_proj(scan[0] if return_state else scan)
        if hidden is not None and self.out_proj.bias is not None:
            y = y.masked_fill(hidden, 0.0)
        return y, MambaState(conv[1], scan[1]) if return_state else None

    def _mark_parameters(self) -> None:
        for parameter in (self.A_log, self.D):
            parameter.__dict__["_no_weight_decay"] = True
        self.dt_proj.bias.__dict__["_no_reinit"] = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._mark_parameters()  # a copied torch.nn.Parameter loses its attributes

    def __repr__(self) -> str:
        bidirectional = ", bidirectional=True" if self.bidirectional else ""
        return (
            f"{type(self).__name__}({self.channels}, d_state={self.d_state}, "
            f"d_conv={self.d_conv}, expand={self.expand}{bidirectional})"
        )
