from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class TemporalOperator(nn.Module):
    r"""An operator over time: every row of :obj:`x[..., T, C]` is a series of its own.

    Subclasses write :meth:`forward` and, when they are causal, :meth:`prefill`;
    :meth:`step` follows from it.
    The state is a value, a :obj:`NamedTuple` of tensors: it is handed in and out, never changed in
    place and never kept on the module.

    Masks are :obj:`True` where a step was observed. An unobserved step has no influence on any
    other step, whatever it holds, and its output is zero.
    """

    causal: bool = True

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        r"""Runs over whole series.

        Args:
            x (torch.Tensor): The series.
            mask (torch.Tensor, optional): :obj:`True` where a step was observed.
                (default: :obj:`None`)

        Shapes:
            - **input:** :math:`(*, T, C)`, mask :math:`(*, T)`
            - **output:** :math:`(*, T, C)`
        """
        raise NotImplementedError

    def prefill(
        self, x: Tensor, state: Any = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        r"""Runs over the next steps of the series and returns where it stopped.

        Args:
            x (torch.Tensor): The next steps.
            state (NamedTuple, optional): What an earlier call returned; :obj:`None` starts a new
                series. (default: :obj:`None`)
            mask (torch.Tensor, optional): :obj:`True` where a step was observed.
                (default: :obj:`None`)

        Shapes:
            - **input:** :math:`(*, T, C)`, mask :math:`(*, T)`
            - **output:** :math:`(*, T, C)` and the state
        """
        raise NotImplementedError

    def step(self, x: Tensor, state: Any = None, mask: Tensor | None = None) -> tuple[Tensor, Any]:
        r"""Runs over one step: :meth:`prefill` on a series of length one.

        Shapes:
            - **input:** :math:`(*, C)`, mask :math:`(*)`
            - **output:** :math:`(*, C)` and the state
        """
        y, state = self.prefill(
            x.unsqueeze(-2), state, None if mask is None else mask.unsqueeze(-1)
        )
        return y.squeeze(-2), state

    def _check(self, x: Tensor, mask: Tensor | None, channels: int) -> None:
        if x.dim() < 2 or x.size(-1) != channels:
            raise ValueError(
                f"{type(self).__name__} expects x[..., T, C] with C = {channels} channels last, "
                f"got a tensor of shape {list(x.shape)}"
            )
        if mask is not None and (mask.shape != x.shape[:-1] or mask.dtype != torch.bool):
            raise ValueError(
                f"the mask of {type(self).__name__} is boolean with one entry a step, "
                f"{list(x.shape[:-1])} for x of shape {list(x.shape)}, got {list(mask.shape)} "
                f"and dtype {mask.dtype}"
            )

    def _check_streams(self) -> None:
        if not self.causal:
            raise ValueError(
                f"{self!r} is not causal: each output depends on later steps, so the series "
                f"cannot be continued from a state; call it on whole series or build it causal"
            )
