from __future__ import annotations

import math

import numpy as np

# What float32 rounds away from a series, relative to its power.
ROUNDING = float(np.finfo(np.float32).eps) ** 2


def strongest_peaks(power: np.ndarray, num_peaks: int, min_separation: int) -> np.ndarray:
    r"""The highest peaks of a spectrum, in ascending order of frequency.

    A peak is higher than both its neighbours. Zero frequency is no neighbour, for with the mean
    its power has been taken away, and the power next to it would always look like a peak.

    Args:
        power (numpy.ndarray): Power at frequency zero and at equally spaced frequencies above.
        num_peaks (int): How many peaks at most.
        min_separation (int): Distance in bins that two peaks keep; the lower one gives way.

    Shapes:
        - **input:** :math:`(F)`
        - **output:** indices :math:`(P)` of :math:`P` peaks
    """
    from scipy import signal  # slow to import, and few need it

    peaks, _ = signal.find_peaks(
        power[1:],
        plateau_size=(1, 1),
        height=ROUNDING * power[1:].max(),
        distance=min_separation,
    )
    highest_first = np.argsort(-power[1 + peaks], kind="stable")
    return 1 + np.sort(peaks[highest_first[:num_peaks]])


def parabolic_offset(power: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    r"""How far, in bins, the top of the parabola through the logarithms of the power at a peak and
    at its two neighbours is from the peak.

    .. math::
        \delta = \frac{1}{2} \frac{\alpha - \gamma}{\alpha - 2 \beta + \gamma}, \qquad
        (\alpha, \beta, \gamma) = (\log P_{i-1}, \log P_i, \log P_{i+1})

    Args:
        power (numpy.ndarray): Power at equally spaced frequencies.
        peaks (numpy.ndarray): Indices of the peaks.

    Shapes:
        - **input:** power :math:`(F)`, peaks :math:`(P)`
        - **output:** :math:`(P)`, each between :math:`-\frac{1}{2}` and :math:`\frac{1}{2}`
    """
    log_power = np.log(np.maximum(power, np.finfo(power.dtype).tiny))
    before, top, after = log_power[peaks - 1], log_power[peaks], log_power[peaks + 1]
    return (before - after) / (before - 2 * top + after) / 2


def least_squares_frequency(y: np.ndarray, dt: float, low: float, high: float) -> float:
    r"""The frequency whose wave, of any amplitude and phase in each series, explains most of them.

    .. math::
        f^{\ast} = \mathrm{argmax}_f \sum_n \left\| \mathbf{Q}_f^{\top} \mathbf{y}_n \right\|^2

    where the columns of :math:`\mathbf{Q}_f` are an orthonormal basis of what :math:`\sin 2 \pi f
    t` and :math:`\cos 2 \pi f t` span beside the constant.

    Args:
        y (numpy.ndarray): The series, time first.
        dt (float): Time between two samples.
        low (float): Least frequency that is considered, above zero.
        high (float): Greatest one, below :math:`1 / (2 \Delta t)`.

    Shapes:
        - **input:** :math:`(T, N)`
        - **output:** a number
    """
    from scipy import optimize  # slow to import, and few need it

    time = dt * np.arange(len(y))

    def unexplained(frequency: float) -> float:
        angle = 2 * np.pi * frequency * time
        waves = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        basis, _ = np.linalg.qr(waves - waves.mean(axis=0))
        return -float(np.square(basis.T @ y).sum())

    # What is explained has many local maxima, about one in each 1 / (T dt): first look everywhere.
    resolution = 1 / (dt * len(y))
    grid = np.linspace(low, high, 2 + math.ceil(4 * (high - low) / resolution))
    best = int(np.argmin([unexplained(frequency) for frequency in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = optimize.minimize_scalar(
        unexplained, bounds=around, method="bounded", options={"xatol": 1e-7 * resolution}
    )
    return float(found.x)
