from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class AuxiliaryLoss(nn.Module):
    r"""A module whose forward pass leaves a loss of its own beside what it returns, as the
    balancing losses of a mixture of experts; training adds it to the loss of the task.

    .. code-block:: python

        loss = criterion(model(x), y) + model.get_aux_loss()
    """

    _aux_loss: Tensor | None = None

    def get_aux_loss(self) -> Tensor:
        r"""The auxiliary loss of the last forward pass: a number, zero where it had none and
        outside of training."""
        if self._aux_loss is not None:
            return self._aux_loss
        some = next(self.parameters(), None)
        return torch.zeros((), device=None if some is None else some.device)

    def __getstate__(self) -> dict[str, Any]:
        # It belongs to a forward pass, not to the module, and cannot be copied with its graph.
        return {name: value for name, value in self.__dict__.items() if name != "_aux_loss"}
