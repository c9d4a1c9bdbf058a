from __future__ import annotations

from torch import Tensor

from pyg_stmamba.nn.transformer.base import BaseTransformer
from pyg_stmamba.nn.transformer.encoder_layer import TransformerEncoderLayer


class TransformerEncoder(BaseTransformer):
    r"""The encoder of the `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_ paper
    for sequences of values, with a choice of attentions, norms and feed-forward networks.

    .. math::
        \mathbf{h}^{(0)}_t = \mathbf{W} \mathbf{x}_t + \mathbf{b} + \mathbf{p}_t, \qquad
        \mathbf{h}^{(l)} = \mathrm{Layer}_l \left( \mathbf{h}^{(l-1)} \right), \qquad
        \mathbf{y} = \mathrm{Norm} \left( \mathbf{h}^{(N)} \right)

    .. code-block:: python

        encoder = TransformerEncoder(7, d_model=64, nhead=4, num_layers=2, use_moe=True)
        memory = encoder(values)  # [B, L, 7] -> [B, L, 64]
        loss = task_loss(memory) + encoder.get_aux_loss()  # balances the experts

    The series :obj:`x[N, T, C]` on the nodes of a graph are such a batch of sequences. The
    arguments are those of :class:`~pyg_stmamba.nn.transformer.base.BaseTransformer`.

    Shapes:
        - **input:** :math:`(B, L, F_{in})`
        - **output:** :math:`(B, L, D)`, or :math:`(B, L, F_{out})` with :obj:`output_size`
    """

    layer_class = TransformerEncoderLayer
    phases = 2

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        time_features: Tensor | None = None,
        cond: Tensor | None = None,
    ) -> Tensor:
        r"""Runs the encoder.

        Args:
            src (torch.Tensor): The values.
            src_mask (torch.Tensor, optional): Which pairs of tokens are not allowed, boolean
                :obj:`True`, or what is added to their logits, :math:`(L, L)` or
                :math:`(B, L, L)`. (default: :obj:`None`)
            src_key_padding_mask (torch.Tensor, optional): Which tokens are padding, boolean
                :obj:`True`, :math:`(B, L)`. (default: :obj:`None`)
            time_features (torch.Tensor, optional): Known features of the time of each step,
                :math:`(B, L, F_t)`. (default: :obj:`None`)
            cond (torch.Tensor, optional): The condition of adaptive norms, :math:`(B, C)` or
                :math:`(B, L, C)`. (default: :obj:`None`)
        """
        x = self._embed(src, time_features)
        total = x.new_zeros(())
        for layer in self._depths():
            x, aux_loss = self._run_layer(layer, x, src_mask, src_key_padding_mask, cond)
            total = total + aux_loss
        self._aux_loss = total
        return self._finish(x, cond)
