from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def masked_mae(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean absolute error over the observed targets.

    .. math::
        \frac{1}{|M|} \sum_{i \in M} |\hat y_i - y_i|

    A target counts if it is observed and not NaN. Without a single one the loss is zero and still
    hangs on the graph of :obj:`prediction`, so that a backward pass works.

    Args:
        prediction (torch.Tensor): Forecasts.
        target (torch.Tensor): True values of the same shape. Values that are not observed may be
            anything, NaN and infinity included.
        mask (torch.Tensor, optional): Boolean, :obj:`True` = observed, of the same shape.
            (default: :obj:`None`, all observed)

    Raises:
        ValueError: If shapes differ or the mask is not boolean.
    """
    prediction, target, valid = _observed(prediction, target, mask)
    return _mean((prediction - target).abs(), valid)


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean squared error over the observed targets; arguments as :func:`masked_mae`.

    .. math::
        \frac{1}{|M|} \sum_{i \in M} (\hat y_i - y_i)^2
    """
    prediction, target, valid = _observed(prediction, target, mask)
    return _mean((prediction - target).square(), valid)


def masked_huber(
    prediction: Tensor, target: Tensor, mask: Tensor | None = None, delta: float = 1.0
) -> Tensor:
    r"""The loss of `"Robust Estimation of a Location Parameter"
    <https://doi.org/10.1214/aoms/1177703732>`_ over the observed targets, squared for small errors
    and absolute for large ones; arguments as :func:`masked_mae`.

    .. math::
        \frac{1}{|M|} \sum_{i \in M} q_i \left( |\hat y_i - y_i| - \frac{q_i}{2} \right), \qquad
        q_i = \min(|\hat y_i - y_i|, \delta)

    Args:
        delta (float, optional): The error :math:`\delta` from which on the loss is linear.
            (default: :obj:`1.0`)
    """
    if not delta > 0:
        raise ValueError(f"delta must be positive, got {delta}")
    prediction, target, valid = _observed(prediction, target, mask)
    error = (prediction - target).abs()
    small = error.clamp(max=delta)
    return _mean(small * (error - 0.5 * small), valid)


def masked_smape(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Symmetric mean absolute percentage error over the observed targets, as a fraction between
    0 and 2; arguments as :func:`masked_mae`.

    .. math::
        \frac{1}{|M|} \sum_{i \in M} \frac{2 \, |\hat y_i - y_i|}{|\hat y_i| + |y_i|}

    A denominator below the resolution of the data type is raised to it: a zero that is forecast as
    zero is no error, and gradients stay finite.
    """
    prediction, target, valid = _observed(prediction, target, mask)
    error = (prediction - target).abs()
    size = prediction.abs() + target.abs()
    return _mean(2.0 * error / size.clamp(min=torch.finfo(size.dtype).eps), valid)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "mae": masked_mae,
    "mse": masked_mse,
    "huber": masked_huber,
    "smape": masked_smape,
}


def _observed(
    prediction: Tensor, target: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Both with zeros where a target does not count, and which do count."""
    if prediction.shape != target.shape:
        raise ValueError(
            "prediction and target must have the same shape, got "
            f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    valid = ~target.isnan()
    if mask is not None:
        if mask.shape != target.shape or mask.dtype != torch.bool:
            raise ValueError(
                "mask must be boolean (True = observed) and of the shape of target, "
                f"{tuple(target.shape)}, got {tuple(mask.shape)} and dtype {mask.dtype}"
            )
        valid = valid & mask
    # A sum of half-precision numbers could leave their range.
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return prediction.to(dtype).where(valid, 0.0), target.where(valid, 0.0), valid


def _mean(loss: Tensor, valid: Tensor) -> Tensor:
    return loss.sum() / valid.sum().clamp(min=1)
