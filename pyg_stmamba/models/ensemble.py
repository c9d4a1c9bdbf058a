from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    r"""Forecasts the mean of what several models forecast, trained apart from different seeds, as
    in `"Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles"
    <https://arxiv.org/abs/1612.01474>`_.

    .. math::
        \hat{\mathbf{y}} = \frac{1}{M} \sum_{m=1}^{M} \hat{\mathbf{y}}_m

    Args:
        members (Sequence[torch.nn.Module]): The models; all take the same input.

    Shapes:
        - **input:** what a member takes
        - **output:** what a member gives
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member, got none")
        self.members = nn.ModuleList(members)

    @property
    def num_nodes(self) -> int | None:
        r"""The number of nodes that a member is bound to, if one is."""
        return self._first_of("num_nodes")

    @property
    def steps_per_day(self) -> int | None:
        r"""The times of the day that a member knows, if one does."""
        return self._first_of("steps_per_day")

    def _first_of(self, name: str) -> int | None:
        found = (getattr(member, name, None) for member in self.members)
        return next((value for value in found if value is not None), None)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.stack([member(*args, **kwargs) for member in self.members]).mean(0)
