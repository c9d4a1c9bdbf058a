from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.full_attention import FullAttention
from pyg_stmamba.nn.performer_attention import PerformerAttention


class AttentionClass(nn.Module):
    r"""The heads around an attention, as in the `"Attention Is All You Need"
    <https://arxiv.org/abs/1706.03762>`_ paper.

    .. math::
        \mathbf{y} = \mathbf{W}_o \big\Vert_{h=1}^{H} \mathrm{Attention} \left(
        \mathbf{W}_q^h \mathbf{q}, \mathbf{W}_k^h \mathbf{k}, \mathbf{W}_v^h \mathbf{v} \right)

    Args:
        d_model (int): Size of each token, in and out.
        d_q_k (int): Size of the queries and keys of a head.
        d_v (int): Size of the values of a head.
        n_heads (int): Number of heads.
        dropout (float): Dropout of the projected queries, keys and values.
        attention (torch.nn.Module or callable): An attention such as
            :class:`~pyg_stmamba.nn.PerformerAttention` or :class:`~pyg_stmamba.nn.FullAttention`,
            or a function without arguments that builds one.

    Shapes:
        - **input:** queries :math:`(B, L, D)`, keys and values :math:`(B, S, D)`, attention mask
          :math:`(B, S)` *(optional)*, time index :math:`(S)` *(optional)*
        - **output:** :math:`(B, L, D)`, and the weights :math:`(B, H, L, S)` or :obj:`None`
    """

    def __init__(
        self,
        d_model: int,
        d_q_k: int,
        d_v: int,
        n_heads: int,
        dropout: float,
        attention: nn.Module | Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.d_model, self.n_heads = d_model, n_heads
        self.query_projection = nn.Linear(d_model, d_q_k * n_heads)
        self.key_projection = nn.Linear(d_model, d_q_k * n_heads)
        self.value_projection = nn.Linear(d_model, d_v * n_heads)
        self.out_projection = nn.Linear(d_v * n_heads, d_model)
        self.attention = attention if isinstance(attention, nn.Module) else attention()
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for module in self.children():
            reset: Any = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        output_attention: bool = False,
        time_index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        r"""Projects, attends, and projects back; the arguments are those of the attention."""
        heads = (
            self.dropout(projection(x)).unflatten(-1, (self.n_heads, -1))
            for projection, x in (
                (self.query_projection, query),
                (self.key_projection, key),
                (self.value_projection, value),
            )
        )
        out, weights = self.attention(
            *heads,
            attention_mask=attention_mask,
            output_attention=output_attention,
            time_index=time_index,
        )
        return self.out_projection(out.flatten(-2)), weights

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.d_model}, n_heads={self.n_heads}, "
            f"attention={self.attention!r})"
        )


def create_performer_attention(
    d_model: int,
    d_q_k: int,
    d_v: int,
    n_heads: int,
    dropout_qkv: float = 0.0,
    performer_attention_kernel: str = "softmax",
    redraw_interval: int | None = 1000,
    causal: bool = False,
    nb_features: int | None = None,
    qk_norm: bool = False,
) -> AttentionClass:
    r"""Builds a multi-head :class:`~pyg_stmamba.nn.PerformerAttention`.

    Args:
        d_model (int): Size of each token, in and out.
        d_q_k (int): Size of the queries and keys of a head.
        d_v (int): Size of the values of a head.
        n_heads (int): Number of heads.
        dropout_qkv (float, optional): Dropout of the projected queries, keys and values.
            (default: :obj:`0.0`)
        performer_attention_kernel (str, optional): :obj:`"softmax"` or :obj:`"relu"`.
            (default: :obj:`"softmax"`)
        redraw_interval (int, optional): After how many training passes of the model features are
            drawn anew. (default: :obj:`1000`)
        causal (bool, optional): Whether a query sees keys up to its own place only.
            (default: :obj:`False`)
        nb_features (int, optional): Number of directions of random features.
            (default: :obj:`None`, the larger of 64 and :math:`d \ln d`)
        qk_norm (bool, optional): Whether queries and keys are brought to a learned length.
            (default: :obj:`False`)
    """
    kernel: Any = performer_attention_kernel
    attention = PerformerAttention(
        d_q_k,
        nb_features,
        redraw_interval=redraw_interval,
        causal=causal,
        kernel=kernel,
        qk_norm=qk_norm,
    )
    return AttentionClass(d_model, d_q_k, d_v, n_heads, dropout_qkv, attention)


def create_full_attention(
    d_model: int,
    d_q_k: int,
    d_v: int,
    n_heads: int,
    dropout_qkv: float = 0.0,
    dropout: float = 0.0,
    causal: bool = False,
) -> AttentionClass:
    r"""Builds a multi-head :class:`~pyg_stmamba.nn.FullAttention`; the arguments are those of
    :func:`create_performer_attention`, and :obj:`dropout` is that of the weights."""
    return AttentionClass(d_model, d_q_k, d_v, n_heads, dropout_qkv, FullAttention(causal, dropout))
