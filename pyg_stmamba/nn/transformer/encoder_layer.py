from __future__ import annotations

from torch import Tensor

from pyg_stmamba.nn.transformer.layer import BaseTransformerLayer


class TransformerEncoderLayer(BaseTransformerLayer):
    r"""A layer of a :class:`TransformerEncoder`: self-attention, then a feed-forward network
    (`"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_).

    .. math::
        \mathbf{h} = \mathbf{x} + \mathrm{Drop}(\mathrm{Attention}(\mathrm{Norm}(\mathbf{x}))),
        \qquad
        \mathbf{y} = \mathbf{h} + \mathrm{Drop}(\mathrm{FeedForward}(\mathrm{Norm}(\mathbf{h})))

    or, with :obj:`norm_strategy="post_norm"`, each norm after its sum. The arguments are those of
    :class:`BaseTransformerLayer`.

    Shapes:
        - **input:** :math:`(B, L, D)`
        - **output:** :math:`(B, L, D)`, and the auxiliary loss, a number
    """

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        cond: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Runs the layer.

        Args:
            src (torch.Tensor): The tokens.
            src_mask (torch.Tensor, optional): Which pairs are not allowed, boolean :obj:`True`, or
                what is added to their logits, :math:`(L, L)` or :math:`(B, L, L)`.
                (default: :obj:`None`)
            src_key_padding_mask (torch.Tensor, optional): Which tokens are padding, boolean
                :obj:`True`, :math:`(B, L)`. (default: :obj:`None`)
            cond (torch.Tensor, optional): The condition of adaptive norms, :math:`(B, C)` or
                :math:`(B, L, C)`. (default: :obj:`None`)
        """
        phase = self.self_attn_phase
        change, _, _ = self.self_attn(
            phase.enter(src, cond), attn_mask=src_mask, key_padding_mask=src_key_padding_mask
        )
        x = phase.leave(src, change, cond)
        return self._feed_forward(x, src_key_padding_mask, cond)
