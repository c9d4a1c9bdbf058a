from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

SHORTEST_SEGMENT = 8
WINDOWS = ("hann", "hamming", "blackman", "boxcar")
DETRENDS = ("constant", "linear", None)


def power_spectrum(
    y: Tensor,
    dt: float = 1.0,
    nperseg: int | None = None,
    window: Literal["hann", "hamming", "blackman", "boxcar"] = "hann",
    detrend: Literal["constant", "linear"] | None = "constant",
) -> tuple[Tensor, Tensor]:
    r"""The power spectral density of each series by the method of `"The Use of Fast Fourier
    Transform for the Estimation of Power Spectra: A Method Based on Time Averaging Over Short,
    Modified Periodograms" <https://doi.org/10.1109/TAU.1967.1161901>`_, as
    :func:`scipy.signal.welch` computes it.

    .. math::
        P(f_m) = \frac{a_m \, \Delta t}{S \sum_n h_n^2} \sum_{s=1}^{S} \left| \sum_{n=0}^{M-1} h_n
        \tilde{y}_{s,n} e^{-2 \pi \mathrm{i} m n / M} \right|^2, \qquad
        f_m = \frac{m}{M \Delta t}

    where :math:`\tilde{\mathbf{y}}_s` are segments of :math:`M` samples, each overlapping half of
    the next and rid of its trend, :math:`\mathbf{h}` is the window, and :math:`a_m = 2` except at
    zero and at the highest frequency, where it is 1. One segment as long as the series gives its
    windowed Fourier transform.

    Args:
        y (torch.Tensor): The series, time first.
        dt (float, optional): Time between two samples. (default: :obj:`1.0`)
        nperseg (int, optional): Samples :math:`M` of a segment; by default about a quarter of the
            series, see :func:`segment_length`. (default: :obj:`None`)
        window (str, optional): :obj:`"hann"`, :obj:`"hamming"`, :obj:`"blackman"` or
            :obj:`"boxcar"`. (default: :obj:`"hann"`)
        detrend (str, optional): What is taken off each segment: its mean (:obj:`"constant"`), its
            regression line (:obj:`"linear"`) or nothing (:obj:`None`).
            (default: :obj:`"constant"`)

    Shapes:
        - **input:** :math:`(T, *)`
        - **output:** frequencies :math:`(F)` and densities :math:`(F, *)` with
          :math:`F = \lfloor M / 2 \rfloor + 1`, both float64

    Raises:
        ValueError: If the series is too short, or an option is none of the above.
    """
    check_options(dt, nperseg, window, detrend)
    length = segment_length(y.size(0)) if nperseg is None else nperseg
    if length > y.size(0):
        raise ValueError(f"nperseg ({length}) must not exceed the {y.size(0)} samples of y")
    from scipy import signal  # slow to import, and few need it

    frequencies, density = signal.welch(
        y.detach().double().cpu().numpy(),
        fs=1 / dt,
        window=window,
        nperseg=length,
        detrend=False if detrend is None else detrend,
        axis=0,
    )
    return torch.from_numpy(frequencies).to(y.device), torch.from_numpy(density).to(y.device)


def segment_length(num_samples: int) -> int:
    r"""The samples of a segment for a series of so many: the largest power of two within a quarter
    of the series, but no fewer than 16 unless the series is shorter.

    Args:
        num_samples (int): Samples of the series, at least 8.

    Raises:
        ValueError: If there are fewer samples.
    """
    if num_samples < SHORTEST_SEGMENT:
        raise ValueError(f"a spectrum needs at least {SHORTEST_SEGMENT} samples, got {num_samples}")
    quarter = 2 ** ((num_samples // 4).bit_length() - 1)
    return min(num_samples, max(16, quarter))


def check_options(dt: float, nperseg: int | None, window: str, detrend: str | None) -> None:
    r"""Raises if an option of :func:`power_spectrum` is none that it takes.

    Args:
        dt (float): Time between two samples.
        nperseg (int, optional): Samples of a segment.
        window (str): The window.
        detrend (str, optional): What is taken off each segment.

    Raises:
        ValueError: If one is not.
    """
    if not 0 < dt < math.inf:
        raise ValueError(f"dt must be positive and finite, got {dt}")
    if nperseg is not None and nperseg < SHORTEST_SEGMENT:
        raise ValueError(f"nperseg must be at least {SHORTEST_SEGMENT}, got {nperseg}")
    if window not in WINDOWS:
        raise ValueError(f"unknown window {window!r}; choose one of {list(WINDOWS)}")
    if detrend not in DETRENDS:
        raise ValueError(f"unknown detrend {detrend!r}; choose one of {list(DETRENDS)}")
