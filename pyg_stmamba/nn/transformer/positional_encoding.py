from __future__ import annotations

from torch import Tensor, nn

from pyg_stmamba.nn.embedding.step_position import StepPosition


class PositionalEncoding(nn.Module):
    r"""Adds the waves of the `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_
    paper to the tokens of a sequence.

    .. math::
        \mathbf{y}_t = \mathbf{x}_t + s \, \mathbf{p}_t, \qquad
        p_{t, 2i} = \sin \left( t / 10000^{2i / D} \right), \qquad
        p_{t, 2i + 1} = \cos \left( t / 10000^{2i / D} \right)

    Args:
        d_model (int): Size :math:`D` of a token; it may be odd.
        max_len (int, optional): The longest sequence. (default: :obj:`5000`)
        scale (float, optional): The factor :math:`s` of the waves. (default: :obj:`1.0`)

    Shapes:
        - **input:** :math:`(*, L, D)`
        - **output:** :math:`(*, L, D)`

    Raises:
        ValueError: If the sequence is longer than :obj:`max_len`.
    """

    def __init__(self, d_model: int, max_len: int = 5000, scale: float = 1.0) -> None:
        super().__init__()
        self.max_len, self.scale = max_len, scale
        self.position = StepPosition(d_model, "sinusoidal")

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        r"""Adds the positions.

        Args:
            x (torch.Tensor): The tokens.
            offset (int, optional): The place of the first one. (default: :obj:`0`)
        """
        steps = x.size(-2)
        if offset + steps > self.max_len:
            raise ValueError(
                f"the sequence reaches {offset + steps} tokens, but max_len={self.max_len}; build "
                f"the encoding (of a transformer: max_seq_len) as long as the longest sequence"
            )
        return x + self.scale * self.position(offset, steps, x)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.position.channels}, max_len={self.max_len}, "
            f"scale={self.scale})"
        )
