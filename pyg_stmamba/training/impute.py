from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_stmamba.data import TemporalGraph, Windows
from pyg_stmamba.models.imputer import Imputer


@torch.no_grad()
def impute(
    model: Imputer, graph: TemporalGraph, window: int = 36, stride: int = 6, batch_size: int = 64
) -> Tensor:
    r"""Fills the gaps of a whole series: the mean of what the imputer says in all windows over a
    step; observed values come back as they are.

    Args:
        model (Imputer): The imputer, fitted.
        graph (TemporalGraph): The series.
        window (int, optional): Steps of a window. (default: :obj:`36`)
        stride (int, optional): Steps from one window to the next; the last one ends with the
            series. (default: :obj:`6`)
        batch_size (int, optional): Windows a batch. (default: :obj:`64`)

    Returns:
        torch.Tensor: :math:`[N, T, C]`, in original units.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"stride={stride} must be from 1 to window={window}, to leave no step out")
    last = graph.num_steps - window
    starts = torch.arange(0, last + stride, stride).clamp(max=last)
    windows = Windows(graph, window, 0, starts, targets=False)
    total = torch.zeros_like(graph.values)
    was_training = model.training
    model.eval()
    for part in torch.arange(len(windows)).split(batch_size):
        batch = windows.batch(part)
        steps = (batch.start[:, None] + torch.arange(window)).flatten()
        values = model(batch.to(device_of(model))).to(total.device)
        total.index_add_(1, steps, values.flatten(1, 2))
    model.train(was_training)
    mean = total / windows.step_counts()[:, None]
    return torch.where(graph.mask, graph.values, mean)


def imputation_errors(
    imputed: Tensor, graph: TemporalGraph, steps: Tensor | None = None
) -> dict[str, float]:
    r"""Measures an imputation on the values that the data set hides: mean absolute error, root
    mean squared error, and mean relative error :math:`\sum |\hat{y} - y| / \sum |y|`.

    Args:
        imputed (torch.Tensor): :math:`[N, T, C]`.
        graph (TemporalGraph): The series, with :obj:`target` and :obj:`target_mask`.
        steps (torch.Tensor, optional): Which steps count, boolean :math:`[T]`.
            (default: :obj:`None`, all)
    """
    if "target_mask" not in graph:
        raise ValueError(
            "imputation is measured on a graph with target and target_mask, such as "
            "AQI36(root, masked=True)[0]"
        )
    mask = graph.target_mask if steps is None else graph.target_mask & steps[:, None]
    target = graph.target[mask].double()
    if not target.numel():
        raise ValueError("no value is hidden at these steps")
    error = (imputed[mask].double() - target).abs()
    return {
        "mae": float(error.mean()),
        "rmse": float(error.square().mean().sqrt()),
        "mre": float(error.sum() / target.abs().sum()),
    }


def device_of(model: nn.Module) -> torch.device:
    r"""Returns the device of the parameters and buffers of a module."""
    return next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
