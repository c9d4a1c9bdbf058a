from __future__ import annotations

import numpy as np


def root_mean_square(
    values: np.ndarray, weights: np.ndarray | None = None, *, per_component: bool = False
) -> np.ndarray:
    r"""The root mean square of a field over the nodes, instant by instant.

    .. math::
        \mathrm{RMS}_t = \sqrt{\frac{\sum_n w_n \, {\lVert v_{n,t} \rVert}^2}{\sum_n w_n}}

    Given the difference of two fields it is their root mean square error. A vector counts with
    its whole length; :obj:`per_component` divides by :math:`\sqrt{C}`, which is the mean over
    nodes and components that `"Learning Mesh-Based Simulation with Graph Networks"
    <https://arxiv.org/abs/2010.03409>`_ reports.

    Args:
        values (numpy.ndarray): The field.
        weights (numpy.ndarray, optional): What each node counts, not negative: the areas around
            the nodes, or 1 where a node counts and 0 elsewhere. (default: :obj:`None`, all alike)
        per_component (bool, optional): Whether to take the mean over components too.
            (default: :obj:`False`)

    Shapes:
        - **input:** values :math:`(|\mathcal{V}|, T, C)`, weights :math:`(|\mathcal{V}|)`
        - **output:** :math:`(T)`, float64

    Raises:
        ValueError: If shapes do not fit, or weights are negative or all 0.
    """
    values = _field(values)
    weights = _weights(weights, len(values))
    # Nodes that do not count may hold anything, so they are left out, not multiplied by 0.
    counts = weights > 0
    squares = np.square(values[counts]).sum(2)
    mean = weights[counts] @ squares / weights.sum()
    return np.sqrt(mean / values.shape[2] if per_component else mean)


def gauge_free(pressure: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    r"""Takes the mean over the nodes away from a pressure, instant by instant.

    Where no boundary fixes it, the pressure of an incompressible flow is known up to a constant
    only, the gauge, which is no error of a prediction.

    Args:
        pressure (numpy.ndarray): The pressure.
        weights (numpy.ndarray, optional): What each node counts in the mean, usually the areas
            around the nodes. (default: :obj:`None`, all alike)

    Shapes:
        - **input:** pressure :math:`(|\mathcal{V}|, T, C)`, weights :math:`(|\mathcal{V}|)`
        - **output:** :math:`(|\mathcal{V}|, T, C)`, float64
    """
    pressure = _field(pressure)
    weights = _weights(weights, len(pressure))
    return pressure - np.tensordot(weights, pressure, 1) / weights.sum()


def relative_l2(
    prediction: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    r"""The error in the :math:`L^2` norm as a share of the norm of the truth, instant by instant.

    .. math::
        \frac{\lVert \hat{v} - v \rVert}{\lVert v \rVert}, \qquad
        {\lVert v \rVert}^2 = \sum_n w_n \, {\lVert v_n \rVert}^2

    It is not a number where the truth is 0 everywhere.

    Args:
        prediction (numpy.ndarray): The predicted field.
        truth (numpy.ndarray): The true field.
        weights (numpy.ndarray, optional): What each node counts, usually the areas around the
            nodes, which makes the sums integrals. (default: :obj:`None`, all alike)

    Shapes:
        - **input:** fields :math:`(|\mathcal{V}|, T, C)`, weights :math:`(|\mathcal{V}|)`
        - **output:** :math:`(T)`, float64
    """
    prediction, truth = _field(prediction), _field(truth)
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction and truth must have one shape, got {list(prediction.shape)} and "
            f"{list(truth.shape)}"
        )
    error = root_mean_square(prediction - truth, weights)
    return share(error, root_mean_square(truth, weights))


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    r"""Divides, with not-a-number where the whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole != 0)


def kinetic_energy(velocity: np.ndarray, weights: np.ndarray) -> np.ndarray:
    r"""The kinetic energy of a flow of density 1, :math:`\frac{1}{2} \sum_n w_n {\lVert v_n
    \rVert}^2`, instant by instant.

    Args:
        velocity (numpy.ndarray): The velocity.
        weights (numpy.ndarray): The area (or volume) around each node.

    Shapes:
        - **input:** velocity :math:`(|\mathcal{V}|, T, C)`, weights :math:`(|\mathcal{V}|)`
        - **output:** :math:`(T)`, float64
    """
    velocity = _field(velocity)
    return 0.5 * (_weights(weights, len(velocity)) @ np.square(velocity).sum(2))


def _field(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 3:
        raise ValueError(f"a field must be [N, T, C], got shape {list(values.shape)}")
    return values


def _weights(weights: np.ndarray | None, num_nodes: int) -> np.ndarray:
    weights = np.ones(num_nodes) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != (num_nodes,):
        raise ValueError(
            f"weights must be [{num_nodes}], one a node, got shape {list(weights.shape)}"
        )
    if not (weights >= 0).all() or not weights.any():
        raise ValueError("weights must not be negative, and not all 0")
    return weights
