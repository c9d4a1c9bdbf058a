from __future__ import annotations

from typing import Any

from torch import Tensor

from pyg_stmamba.nn.transformer.base import BaseTransformer
from pyg_stmamba.nn.transformer.decoder_layer import TransformerDecoderLayer
from pyg_stmamba.nn.transformer.incremental_state import (
    IncrementalState,
    layer_states,
    seen_tokens,
)


class TransformerDecoder(BaseTransformer):
    r"""The decoder of the `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_ paper
    for sequences of values: whole sequences at once, or one step after the other from keys and
    values that were kept.

    .. math::
        \mathbf{h}^{(0)}_t = \mathbf{W} \mathbf{x}_t + \mathbf{b} + \mathbf{p}_t, \qquad
        \mathbf{h}^{(l)} = \mathrm{Layer}_l \left( \mathbf{h}^{(l-1)}, \mathbf{m} \right),
        \qquad
        \mathbf{y} = \mathbf{W}_o \, \mathrm{Norm} \left( \mathbf{h}^{(N)} \right)

    .. code-block:: python

        decoder = TransformerDecoder(input_size=1, output_size=1, d_model=64, nhead=4).eval()
        state = {}
        for _ in range(12):
            value, state = decoder.forward_one_step(value, memory, state)  # [B, 1, 1]

    Args:
        input_size (int): Number of values of a step, in.
        output_size (int): Number of values of a step, out.
        informer_like (bool, optional): Whether all tokens see each other, as in the one-shot
            decoder of `"Informer" <https://arxiv.org/abs/2012.07436>`_; steps cannot be decoded
            one by one then. (default: :obj:`False`)
        **kwargs (optional): The further arguments of
            :class:`~pyg_stmamba.nn.transformer.base.BaseTransformer`.

    Shapes:
        - **input:** :math:`(B, L, F_{in})`, memory :math:`(B, S, D)`
        - **output:** :math:`(B, L, F_{out})`

    Raises:
        ValueError: If :obj:`att_type="frequency"` comes without :obj:`informer_like`: frequencies
            of a sequence know its end.
    """

    layer_class = TransformerDecoderLayer
    phases = 3

    def __init__(
        self, input_size: int, output_size: int, *, informer_like: bool = False, **kwargs: Any
    ) -> None:
        if kwargs.get("att_type") == "frequency" and not informer_like:
            raise ValueError(
                "att_type='frequency' in a causal decoder: the frequencies of a sequence know its "
                "end. Build it with informer_like=True, or choose 'standard', 'xformer' or 'flash'"
            )
        super().__init__(input_size, output_size=output_size, **kwargs)
        self.informer_like = informer_like

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        incremental_state: IncrementalState | None = None,
        return_incremental_state: bool = False,
        time_features: Tensor | None = None,
        cond: Tensor | None = None,
    ) -> Any:
        r"""Runs the decoder.

        Args:
            tgt (torch.Tensor): The values; with a state, those that follow it.
            memory (torch.Tensor): What an encoder returned.
            tgt_mask (torch.Tensor, optional): Which pairs of tokens are not allowed beside those
                that causality forbids, boolean :obj:`True`, or what is added to their logits.
                (default: :obj:`None`)
            memory_mask (torch.Tensor, optional): The same of tokens and memory.
                (default: :obj:`None`)
            tgt_key_padding_mask (torch.Tensor, optional): Which tokens are padding, boolean
                :obj:`True`; with a state, those before it included. (default: :obj:`None`)
            memory_key_padding_mask (torch.Tensor, optional): The same of the memory.
                (default: :obj:`None`)
            incremental_state (dict, optional): Keys and values of the tokens before, filled in
                place; :obj:`{}` starts. (default: :obj:`None`)
            return_incremental_state (bool, optional): Whether to return the state beside the
                values, a new one if none was given. (default: :obj:`False`)
            time_features (torch.Tensor, optional): Known features of the time of each step,
                :math:`(B, L, F_t)`. (default: :obj:`None`)
            cond (torch.Tensor, optional): The condition of adaptive norms.
                (default: :obj:`None`)
        """
        state = incremental_state
        if state is None and return_incremental_state:
            state = {}
        if state is not None and self.informer_like:
            raise ValueError(
                f"{type(self).__name__} was built with informer_like=True: all tokens see each "
                "other, so they cannot be decoded one by one; call it on the whole sequence, or "
                "build it with informer_like=False"
            )
        offset = 0 if state is None else seen_tokens(state)
        x = self._embed(tgt, time_features, offset)
        depth = self.num_layers
        of_layers = [None] * depth if state is None else layer_states(state, depth)
        total, new = x.new_zeros(()), []
        for layer, of_layer in zip(self._depths(), of_layers):
            x, aux_loss, of_layer = self._run_layer(
                layer,
                x,
                memory,
                tgt_mask,
                memory_mask,
                tgt_key_padding_mask,
                memory_key_padding_mask,
                cond,
                not self.informer_like,
                of_layer,
                keeps_state=state is not None,
            )
            total = total + aux_loss
            new.append(of_layer)
        self._aux_loss = total
        y = self._finish(x, cond)
        if state is not None:
            state["layers"] = new
        return (y, state) if return_incremental_state else y

    def forward_one_step(
        self,
        tgt: Tensor,
        memory: Tensor,
        incremental_state: IncrementalState | None = None,
        memory_key_padding_mask: Tensor | None = None,
        time_features: Tensor | None = None,
        cond: Tensor | None = None,
    ) -> tuple[Tensor, IncrementalState]:
        r"""Decodes the next step, or several: :meth:`forward` from a state. The memory is looked
        at in the first call only.

        Shapes:
            - **input:** :math:`(B, 1, F_{in})`, memory :math:`(B, S, D)`
            - **output:** :math:`(B, 1, F_{out})` and the state
        """
        return self.forward(
            tgt,
            memory,
            memory_key_padding_mask=memory_key_padding_mask,
            incremental_state={} if incremental_state is None else incremental_state,
            return_incremental_state=True,
            time_features=time_features,
            cond=cond,
        )
