from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pyg_stmamba.training.mesh.flow_metrics import share

ENDINGS = ("_rmse", "_rmse_gauge_free", "_relative_l2", "_rms", "_rms_truth", "_error")


def is_scored(metric: str) -> bool:
    r"""Whether a metric of the steps is an error that has a value over horizons too; the others
    are norms and signals.

    Args:
        metric (str): Its name.
    """
    return metric.endswith(ENDINGS)


def errors_at_horizons(
    steps: Mapping[str, np.ndarray], horizons: Sequence[int | None], cumulative: bool = True
) -> dict[str, dict[str, float]]:
    r"""Takes errors over horizons from errors of steps.

    With :obj:`cumulative` the error over a horizon :math:`h` is the root mean square of those of
    the steps :math:`1, \ldots, h`, and a relative one the root mean square of the error over that
    of the truth; without, it is that of step :math:`h`.

    Args:
        steps (dict[str, numpy.ndarray]): Metrics of each step, :math:`(T)` each; with
            :obj:`<field>_relative_l2` its norms :obj:`<field>_l2` and :obj:`<field>_l2_truth`.
        horizons (sequence): Numbers of steps, :obj:`None` for all; those longer than the rollout
            are left out.
        cumulative (bool, optional): See above. (default: :obj:`True`)

    Returns:
        dict[str, dict[str, float]]: The errors of each horizon, by its number or :obj:`"all"`.

    Raises:
        ValueError: If a horizon is not positive.
    """
    length = len(next(iter(steps.values())))
    errors = {}
    for horizon in horizons:
        if horizon is not None and horizon < 1:
            raise ValueError(f"a horizon must be at least 1 step, or None for all, got {horizon}")
        if horizon is not None and horizon > length:
            continue
        stop = length if horizon is None else horizon
        within = slice(0 if cumulative else stop - 1, stop)
        errors["all" if horizon is None else str(horizon)] = {
            metric: _over(steps, metric, within) for metric in steps if is_scored(metric)
        }
    return errors


def _over(steps: Mapping[str, np.ndarray], metric: str, within: slice) -> float:
    if metric.endswith("_relative_l2"):
        norm = metric.removesuffix("_relative_l2") + "_l2"
        error, truth = _mean(steps[norm][within]), _mean(steps[f"{norm}_truth"][within])
        return float(share(error, truth))
    return float(_mean(steps[metric][within]))


def _mean(errors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(errors).mean())
