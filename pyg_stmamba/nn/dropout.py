import torch
from torch import Tensor, nn

from pyg_stmamba.ops import dropout_mask


class Dropout(nn.Dropout):
    r"""The dropout of `"Improving neural networks by preventing co-adaptation of feature
    detectors" <https://arxiv.org/abs/1207.0580>`_, which zeroes an element with probability
    :obj:`p` and scales the others by :math:`1 / (1 - p)`.

    On a CPU it draws sixteen bits for an element, which takes half the time of
    :class:`torch.nn.Dropout`; elsewhere it is the same.

    Args:
        p (float, optional): The probability of an element to be zeroed. (default: :obj:`0.5`)

    Shapes:
        - **input:** :math:`(*)`
        - **output:** :math:`(*)`
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        keep, scale = dropout_mask(x.shape, self.p, x.device)
        return x * keep.view(torch.uint8).to(x.dtype).mul_(scale)
