from __future__ import annotations

import torch
from torch import Tensor

from pyg_stmamba.nn.losses import masked_mae, masked_mse

Scores = dict[str, float]


def masked_rmse(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Root mean squared error over the observed targets; arguments as :func:`masked_mae`."""
    return masked_mse(prediction, target, mask).sqrt()


def masked_mape(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean absolute error relative to the true value, as a fraction, over the observed targets
    that are not zero; arguments as :func:`masked_mae`."""
    mask = target != 0 if mask is None else mask & (target != 0)
    size = target.where(mask, 1.0).abs()
    return masked_mae(prediction / size, target / size, mask)


class HorizonMetrics:
    r"""Masked errors over a whole evaluation set, for each step ahead and for all of them.

    Sums and counts are kept in float64 and divided once, at the end. Averages of the errors of
    batches, which weight windows with many gaps too much, never appear. The average over the
    horizon is pooled: every observed target of every step counts the same.

    Args:
        horizon (int): Number of steps ahead.
        report_steps (tuple[int, ...], optional): The steps that :meth:`compute` names, counted
            from one; those past the horizon are left out. (default: :obj:`(3, 6, 12)`)
    """

    def __init__(self, horizon: int, report_steps: tuple[int, ...] = (3, 6, 12)) -> None:
        self.horizon = horizon
        self.report_steps = tuple(step for step in report_steps if step <= horizon)
        # Rows: absolute, squared and relative error, observed targets, observed nonzero targets.
        self._sums = torch.zeros(5, horizon, dtype=torch.float64)

    def update(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        r"""Adds forecasts :obj:`[..., horizon, channels]` and their targets."""
        if prediction.shape != target.shape or prediction.size(-2) != self.horizon:
            raise ValueError(
                f"HorizonMetrics got predictions of shape {tuple(prediction.shape)} and targets of "
                f"shape {tuple(target.shape)}; both must be [..., {self.horizon}, channels]"
            )
        mask = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
        relative_mask = mask & (target != 0)
        error = (prediction - target).where(mask, 0.0).double().abs()
        relative = error / target.where(relative_mask, 1.0).abs() * relative_mask
        rows = (error, error * error, relative, mask.double(), relative_mask.double())
        per_step = [row.transpose(-1, -2).reshape(-1, self.horizon).sum(0) for row in rows]
        self._sums += torch.stack(per_step).cpu()

    def compute(self) -> dict[str, dict[str, Scores] | Scores]:
        r"""Returns :obj:`{"horizons": {"3": {"mae", "rmse", "mape"}, ...}, "average": {...}}`,
        NaN where nothing was observed."""
        horizons = {str(step): _scores(self._sums[:, step - 1]) for step in self.report_steps}
        return {"horizons": horizons, "average": _scores(self._sums.sum(1))}

    def mae_by_step(self) -> Tensor:
        r"""Returns the masked mean absolute error of each step ahead, :obj:`[horizon]`."""
        return self._sums[0] / self._sums[3]


def _scores(sums: Tensor) -> Scores:
    absolute, squared, relative, count, relative_count = sums.tolist()
    nan = float("nan")
    return {
        "mae": absolute / count if count else nan,
        "rmse": (squared / count) ** 0.5 if count else nan,
        "mape": relative / relative_count if relative_count else nan,
    }
