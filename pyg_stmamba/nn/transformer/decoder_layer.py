from __future__ import annotations

from torch import Tensor

from pyg_stmamba.nn.transformer.layer import BaseTransformerLayer, LayerState


class TransformerDecoderLayer(BaseTransformerLayer):
    r"""A layer of a :class:`TransformerDecoder`: self-attention, attention to a memory, then a
    feed-forward network (`"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_).

    .. math::
        \mathbf{h} &= \mathbf{x} + \mathrm{Drop}(\mathrm{Attention}(\mathrm{Norm}(\mathbf{x})))

        \mathbf{g} &= \mathbf{h} + \mathrm{Drop}(\mathrm{Attention}(\mathrm{Norm}(\mathbf{h}),
        \mathbf{m}))

        \mathbf{y} &= \mathbf{g} + \mathrm{Drop}(\mathrm{FeedForward}(\mathrm{Norm}(\mathbf{g})))

    or, with :obj:`norm_strategy="post_norm"`, each norm after its sum. The arguments are those of
    :class:`BaseTransformerLayer`.

    Shapes:
        - **input:** :math:`(B, L, D)`, memory :math:`(B, S, D)`
        - **output:** :math:`(B, L, D)`, the auxiliary loss, a number, and the state or
          :obj:`None`
    """

    attends_to_memory = True

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        cond: Tensor | None = None,
        is_causal: bool = True,
        state: LayerState | None = None,
    ) -> tuple[Tensor, Tensor, LayerState | None]:
        r"""Runs the layer.

        Args:
            tgt (torch.Tensor): The tokens; with a state, those that follow it.
            memory (torch.Tensor): What an encoder returned; with a state that has seen it, what it
                holds is used instead.
            tgt_mask (torch.Tensor, optional): Which pairs of tokens are not allowed, boolean
                :obj:`True`, or what is added to their logits. (default: :obj:`None`)
            memory_mask (torch.Tensor, optional): The same of tokens and memory.
                (default: :obj:`None`)
            tgt_key_padding_mask (torch.Tensor, optional): Which tokens are padding, boolean
                :obj:`True`; with a state, those before it included. (default: :obj:`None`)
            memory_key_padding_mask (torch.Tensor, optional): The same of the memory.
                (default: :obj:`None`)
            cond (torch.Tensor, optional): The condition of adaptive norms.
                (default: :obj:`None`)
            is_causal (bool, optional): Whether a token sees itself and earlier ones only.
                (default: :obj:`True`)
            state (dict, optional): Keys and values seen so far, as
                :obj:`{"self_attn": {...}, "cross_attn": {...}}`; :obj:`{}` starts.
                (default: :obj:`None`, none is kept)
        """
        of_self, of_memory = (None, None) if state is None else _parts(state)
        phase = self.self_attn_phase
        change, _, of_self = self.self_attn(
            phase.enter(tgt, cond),
            attn_mask=tgt_mask,
            key_padding_mask=tgt_key_padding_mask,
            is_causal=is_causal,
            layer_state=of_self,
        )
        x = phase.leave(tgt, change, cond)
        phase = self.cross_attn_phase
        change, _, of_memory = self.cross_attn(
            phase.enter(x, cond),
            memory,
            memory,
            attn_mask=memory_mask,
            key_padding_mask=memory_key_padding_mask,
            layer_state=of_memory,
        )
        x = phase.leave(x, change, cond)
        new_tokens = tgt_key_padding_mask
        if new_tokens is not None:
            new_tokens = new_tokens[:, new_tokens.size(1) - tgt.size(1) :]
        x, aux_loss = self._feed_forward(x, new_tokens, cond)
        if of_self is None or of_memory is None:
            return x, aux_loss, None
        return x, aux_loss, {"self_attn": of_self, "cross_attn": of_memory}


def _parts(state: LayerState) -> tuple[dict, dict]:
    return state.get("self_attn", {}), state.get("cross_attn", {})
