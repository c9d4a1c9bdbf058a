from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_stmamba.data import TemporalGraph
from pyg_stmamba.models.fitted_to_data import FittedToData


class Imputer(FittedToData):
    r"""Fills the gaps of series on a graph: the face of everything that imputes.

    .. math::
        \hat{x}_{i,t} = \begin{cases} x_{i,t} & \text{where observed} \\
        f(\mathbf{x} \odot \mathbf{m}, \mathbf{m})_{i,t} & \text{elsewhere} \end{cases}

    What is observed comes back bit by bit, and what stands at a missing entry, NaN included, never
    reaches :math:`f`. A new imputer writes :math:`f` as :meth:`estimate`, and :meth:`fit` if it
    takes anything from the data beforehand.

    Shapes:
        - **input:** values and their mask (:obj:`True` = observed) :math:`(N, *, T, C)`, times of
          the day and days of the week :math:`(*, T)`; or a window
          :class:`~torch_geometric.data.Data` that holds :obj:`x`, :obj:`x_mask`,
          :obj:`time_of_day` and :obj:`day_of_week`
        - **output:** :math:`(N, *, T, C)`, in original units
    """

    def fit(self, graph: TemporalGraph, steps: Tensor | None = None) -> Imputer:
        r"""Takes from the observed entries what is known before any window is seen; here nothing.

        Args:
            graph (TemporalGraph): The series.
            steps (torch.Tensor, optional): Which steps count, boolean :math:`[T]`.
                (default: :obj:`None`, all)
        """
        return self

    def forward(
        self,
        x: Tensor | Data,
        x_mask: Tensor | None = None,
        time_of_day: Tensor | None = None,
        day_of_week: Tensor | None = None,
    ) -> Tensor:
        if isinstance(x, Data):
            data = x
            x, x_mask = data.x, data.x_mask
            time_of_day, day_of_week = data.get("time_of_day"), data.get("day_of_week")
        if x_mask is None:
            x_mask = ~x.isnan()
        if x.dim() < 3 or x_mask.shape != x.shape or x_mask.dtype != torch.bool:
            raise ValueError(
                f"{self.__class__.__name__} takes values [N, ..., T, C] and a boolean mask (True = "
                f"observed) of the same shape, got {list(x.shape)} and {x_mask.dtype} "
                f"{list(x_mask.shape)}"
            )
        estimate = self.estimate(x.masked_fill(~x_mask, 0.0), x_mask, time_of_day, day_of_week)
        return torch.where(x_mask, x, estimate)

    def estimate(
        self, x: Tensor, x_mask: Tensor, time_of_day: Tensor | None, day_of_week: Tensor | None
    ) -> Tensor:
        r"""Returns an estimate of every entry, of which those that are observed are not used.

        Args:
            x (torch.Tensor): Values :math:`[N, *, T, C]`, 0 where missing.
            x_mask (torch.Tensor): Which are observed.
            time_of_day (torch.Tensor, optional): Fractions of the day :math:`[*, T]`.
            day_of_week (torch.Tensor, optional): Days of the week :math:`[*, T]`.
        """
        raise NotImplementedError


def observed_entries(graph: TemporalGraph, steps: Tensor | None) -> Tensor:
    r"""Returns which entries :math:`[N, T, C]` are observed at the given steps :math:`[T]`."""
    if steps is None:
        return graph.mask
    if steps.dtype != torch.bool or steps.shape != (graph.num_steps,):
        raise ValueError(
            f"steps must be boolean [T] = [{graph.num_steps}], got {steps.dtype} "
            f"{list(steps.shape)}"
        )
    return graph.mask & steps[:, None]
