from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.embedding.step_position import StepPosition
from pyg_stmamba.nn.performer_attention import PerformerAttention
from pyg_stmamba.nn.temporal.temporal_operator import TemporalOperator
from pyg_stmamba.ops.linear_attention import LinearAttentionState


class PerformerState(NamedTuple):
    r"""Where a :class:`TemporalPerformer` stopped; its size does not depend on the steps seen."""

    key_value: Tensor  # [..., heads, M, C / heads]: sum of features times values
    key: Tensor  # [..., heads, M]: sum of features
    log_scale: Tensor  # [..., heads]: what both sums are relative to
    steps: Tensor  # []: how many steps were seen, on the CPU


class TemporalPerformer(TemporalOperator):
    r"""The random-feature attention of the `"Rethinking Attention with Performers"
    <https://arxiv.org/abs/2009.14794>`_ paper, over the time of each node: as
    :class:`TemporalAttention`, in linear time and with a state of fixed size.

    .. math::
        \mathbf{y}_t = \mathbf{W}_o \frac{\left( \sum_{s} \mathbf{v}_s
        \phi(\mathbf{k}_s)^{\top} \right) \phi(\mathbf{q}_t)}
        {\left( \sum_{s} \phi(\mathbf{k}_s) \right)^{\top} \phi(\mathbf{q}_t)}, \qquad
        (\mathbf{q}_t, \mathbf{k}_t, \mathbf{v}_t) =
        \mathbf{W}_{qkv} (\mathbf{x}_t + \mathbf{p}_t)

    where :math:`s \leq t` if the operator is causal. See
    :class:`~pyg_stmamba.nn.PerformerAttention` for the features :math:`\phi` and how many it
    takes.

    Args:
        channels (int): Size of each step, in and out.
        heads (int, optional): Number of heads; they share the channels. (default: :obj:`4`)
        nb_features (int, optional): Number of directions of random features.
            (default: :obj:`None`, the larger of 64 and :math:`d \ln d`)
        causal (bool, optional): If set to :obj:`False`, a step also sees later ones, and the
            operator cannot stream. (default: :obj:`True`)
        position (str, optional): How a step knows its place, :obj:`"learned"`,
            :obj:`"sinusoidal"` or :obj:`None` for not at all. (default: :obj:`"sinusoidal"`)
        max_length (int, optional): Number of learned positions, hence the longest series, streamed
            steps counted; the other choices have no limit. (default: :obj:`512`)
        kernel (str, optional): :obj:`"softmax"` or :obj:`"relu"`. (default: :obj:`"softmax"`)
        feature_map (str, optional): :obj:`"optimal"`, :obj:`"positive"` or :obj:`"hyperbolic"`.
            (default: :obj:`"optimal"`)
        qk_norm (bool, optional): Whether queries and keys are brought to a learned length.
            (default: :obj:`False`)
        redraw_interval (int, optional): After how many training passes of the model its features
            are drawn anew, see :func:`~pyg_stmamba.nn.redraw_when_due`. A state must not be
            carried over a new draw. (default: :obj:`1000`)

    Shapes:
        - **input:** :math:`(*, T, C)`, mask :math:`(*, T)` *(optional)*
        - **output:** :math:`(*, T, C)`
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        nb_features: int | None = None,
        causal: bool = True,
        position: Literal["learned", "sinusoidal"] | None = "sinusoidal",
        max_length: int = 512,
        kernel: Literal["softmax", "relu"] = "softmax",
        feature_map: Literal["optimal", "positive", "hyperbolic"] = "optimal",
        qk_norm: bool = False,
        redraw_interval: int | None = 1000,
    ) -> None:
        super().__init__()
        if channels % heads != 0:
            raise ValueError(f"channels ({channels}) must be divisible by heads ({heads})")
        self.channels = channels
        self.heads = heads
        self.causal = causal
        self.position = StepPosition(channels, position, max_length)
        self.in_proj = nn.Linear(channels, 3 * channels)
        self.attention = PerformerAttention(
            channels // heads,
            nb_features,
            redraw_interval=redraw_interval,
            causal=causal,
            kernel=kernel,
            feature_map=feature_map,
            qk_norm=qk_norm,
        )
        self.out_proj = nn.Linear(channels, channels)
        self._reset_projections()

    def reset_parameters(self) -> None:
        r"""Draws all parameters and the random features anew."""
        self._reset_projections()
        self.position.reset_parameters()
        self.attention.reset_parameters()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._run(x, None, mask, return_state=False)[0]

    def prefill(
        self, x: Tensor, state: PerformerState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, PerformerState]:
        self._check_streams()
        y, new_state = self._run(x, state, mask, return_state=True)
        assert new_state is not None
        return y, new_state

    def _run(
        self, x: Tensor, state: PerformerState | None, mask: Tensor | None, return_state: bool
    ) -> tuple[Tensor, PerformerState | None]:
        self._check(x, mask, self.channels)
        if mask is not None:
            x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
        start = 0 if state is None else int(state.steps)
        if self.position.kind is not None:
            x = x + self.position(start, x.size(-2), x)
        query, key, value = self.in_proj(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        y, sums = self.attention.attend(
            query,
            key,
            value,
            padding_mask=None if mask is None else ~mask,
            initial_state=None if state is None else LinearAttentionState(*state[:3]),
            return_final_state=return_state,
        )
        y = self.out_proj(y.flatten(-2))
        if mask is not None:
            y = y.masked_fill(~mask.unsqueeze(-1), 0.0)
        if sums is None:
            return y, None
        return y, PerformerState(*sums, steps=torch.tensor(start + x.size(-2)))

    def _reset_projections(self) -> None:
        for linear in (self.in_proj, self.out_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, heads={self.heads}, causal={self.causal}, "
            f"position={self.position.kind!r})"
        )
