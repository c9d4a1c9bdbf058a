from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.nn.norm.reversible_norm import at_least_float32


class Routing(NamedTuple):
    r"""Where a :class:`TopKRouter` sends each token."""

    logits: Tensor  # [*, E]
    gates: Tensor  # [*, k], what the output of each expert counts
    experts: Tensor  # [*, k], the likeliest first


class TopKRouter(nn.Module):
    r"""Chooses the likeliest experts of each token, as the `"Outrageously Large Neural Networks:
    The Sparsely-Gated Mixture-of-Experts Layer" <https://arxiv.org/abs/1701.06538>`_ paper does.

    .. math::
        \mathbf{p} = \mathrm{softmax}(\mathbf{W} \mathbf{x}), \qquad
        g_i = \frac{p_i}{\sum_{j \in \mathrm{top}_k} p_j}

    A single expert counts :math:`g = p` instead (`"Switch Transformers"
    <https://arxiv.org/abs/2101.03961>`_), for the router would have no gradient else. All is
    computed in single precision at least, also under autocast.

    Args:
        d_model (int): Size of each token.
        num_experts (int): Number of experts.
        top_k (int, optional): Number of experts of a token. (default: :obj:`2`)
        jitter (float, optional): In training, tokens are multiplied by noise that is uniform in
            :math:`[1 - \mathrm{jitter}, 1 + \mathrm{jitter}]`. (default: :obj:`0.0`)
        normalize_gates (bool, optional): If set to :obj:`False`, gates are :math:`p` for any
            number of experts. (default: :obj:`True`)

    Shapes:
        - **input:** :math:`(*, D)`
        - **output:** logits :math:`(*, E)`, gates :math:`(*, k)`, experts :math:`(*, k)`

    Raises:
        ValueError: If there are fewer experts than a token needs, or an option is out of range.
    """

    def __init__(
        self,
        d_model: int,
        num_experts: int,
        top_k: int = 2,
        jitter: float = 0.0,
        normalize_gates: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(
                f"top_k={top_k} must be between 1 and the number of experts, {num_experts}"
            )
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter={jitter} must be at least 0 and below 1")
        self.top_k = top_k
        self.jitter = jitter
        self.normalize_gates = normalize_gates
        self.weight = nn.Parameter(torch.empty(num_experts, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Routing:
        x = at_least_float32(x)
        if self.training and self.jitter > 0:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x, self.weight.to(x.dtype))
        gates, experts = logits.softmax(-1).topk(self.top_k, -1)
        if self.normalize_gates and self.top_k > 1:
            gates = gates / gates.sum(-1, keepdim=True)
        return Routing(logits, gates, experts)

    def __repr__(self) -> str:
        num_experts, d_model = self.weight.shape
        return f"{type(self).__name__}({d_model}, num_experts={num_experts}, top_k={self.top_k})"


def load_balancing_loss(
    logits: Tensor, experts: Tensor, padding_mask: Tensor | None = None
) -> Tensor:
    r"""The loss of the `"Switch Transformers" <https://arxiv.org/abs/2101.03961>`_ paper that is
    least, 1, where all experts are alike in demand.

    .. math::
        L = E \sum_e f_e P_e

    with the fraction :math:`f_e` of choices that fell on an expert, which is taken as constant,
    and the mean :math:`P_e` of its probability.

    Args:
        logits (torch.Tensor): The logits of the router :math:`(*, E)`.
        experts (torch.Tensor): The chosen experts :math:`(*, k)`.
        padding_mask (torch.Tensor, optional): Boolean :math:`(*)`, :obj:`True` for tokens that do
            not count. (default: :obj:`None`)
    """
    logits, experts = _counted(logits, padding_mask), _counted(experts, padding_mask)
    num_experts = logits.size(-1)
    # One counts at least, so that of no token there is no loss rather than NaN.
    chosen = torch.bincount(experts.flatten(), minlength=num_experts)
    fraction = chosen / max(experts.numel(), 1)
    mean = at_least_float32(logits).softmax(-1).sum(0) / max(logits.size(0), 1)
    return num_experts * (fraction * mean).sum()


def router_z_loss(logits: Tensor, padding_mask: Tensor | None = None) -> Tensor:
    r"""The loss of the `"ST-MoE: Designing Stable and Transferable Sparse Expert Models"
    <https://arxiv.org/abs/2202.08906>`_ paper that keeps logits small.

    .. math::
        L = \mathrm{mean} \left( \log \sum_e \exp z_e \right)^2

    Args:
        logits (torch.Tensor): The logits :math:`z` of the router :math:`(*, E)`.
        padding_mask (torch.Tensor, optional): Boolean :math:`(*)`, :obj:`True` for tokens that do
            not count. (default: :obj:`None`)
    """
    logits = at_least_float32(_counted(logits, padding_mask))
    return logits.logsumexp(-1).square().sum() / max(logits.size(0), 1)


def _counted(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """The rows of tokens that count."""
    return x.reshape(-1, x.size(-1)) if padding_mask is None else x[~padding_mask]
