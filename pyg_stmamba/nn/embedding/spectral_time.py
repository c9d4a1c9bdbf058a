from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.embedding.power_spectrum import (
    check_options,
    power_spectrum,
    segment_length,
)
from pyg_stmamba.nn.embedding.spectral_peaks import (
    least_squares_frequency,
    parabolic_offset,
    strongest_peaks,
)
from pyg_stmamba.nn.embedding.standardized_channels import standardized_channels


class SpectralTimeEmbedding(nn.Module):
    r"""Sines and cosines of time at the dominant frequencies of the data, for series without a
    calendar such as those of a simulation.

    .. math::
        \mathbf{y}(t) = \left[ \sin 2 \pi f_1 t, \; \cos 2 \pi f_1 t, \; \ldots, \;
        \sin 2 \pi f_K t, \; \cos 2 \pi f_K t \right]

    :meth:`fit` finds the frequencies once, on the training rows: it averages the
    :func:`power_spectrum` over all channels, each first brought to mean 0 and standard deviation 1,
    takes the highest peaks, and refines their places between the bins of the spectrum. Nothing is
    learned. Frequencies and phases are held in float64 whatever the precision of the model, since
    a phase grows with time.

    .. code-block:: python

        embedding = SpectralTimeEmbedding(num_modes=3, dt=0.01).fit(probes[:train_end])
        embedding(0.01 * torch.arange(len(probes)))  # [T, 6]

    Args:
        num_modes (int, optional): Number of frequencies :math:`K`. If the spectrum has fewer peaks,
            the features of the others are 0. (default: :obj:`1`)
        dt (float, optional): Time between two rows of the data. (default: :obj:`1.0`)
        method (str, optional): The spectrum is that of overlapping segments (:obj:`"welch"`) or of
            the whole record at once (:obj:`"fft"`). (default: :obj:`"welch"`)
        nperseg (int, optional): Rows of a segment, for :obj:`"welch"`; by default about a quarter
            of the record, a power of two. (default: :obj:`None`)
        window (str, optional): :obj:`"hann"`, :obj:`"hamming"`, :obj:`"blackman"` or
            :obj:`"boxcar"`. (default: :obj:`"hann"`)
        detrend (str, optional): What is taken off each segment, :obj:`"constant"`,
            :obj:`"linear"` or :obj:`None`. (default: :obj:`"constant"`)
        min_separation (int, optional): Bins that two frequencies are apart at least.
            (default: :obj:`2`)
        refine (str, optional): A peak moves to the top of a parabola through the logarithms of the
            spectrum (:obj:`"parabolic"`), or to where a wave explains most of the whole record
            (:obj:`"lsq"`, slower and more exact), or stays in its bin (:obj:`None`).
            (default: :obj:`"parabolic"`)

    Shapes:
        - **input:** times in the unit of :obj:`dt`, :math:`(*, L, 1)` or :math:`(*, L)`; a last
          dimension of size 1 is taken for the former
        - **output:** :math:`(*, L, 2K)`

    Raises:
        ValueError: If an option is none of the above.
    """

    freqs: Tensor
    power: Tensor
    n_modes: Tensor

    def __init__(
        self,
        num_modes: int = 1,
        dt: float = 1.0,
        method: Literal["welch", "fft"] = "welch",
        nperseg: int | None = None,
        window: Literal["hann", "hamming", "blackman", "boxcar"] = "hann",
        detrend: Literal["constant", "linear"] | None = "constant",
        min_separation: int = 2,
        refine: Literal["parabolic", "lsq"] | None = "parabolic",
    ) -> None:
        super().__init__()
        check_options(dt, nperseg, window, detrend)
        if num_modes < 1:
            raise ValueError(f"num_modes must be at least 1, got {num_modes}")
        if min_separation < 1:
            raise ValueError(f"min_separation must be at least 1, got {min_separation}")
        if method not in ("welch", "fft"):
            raise ValueError(f"unknown method {method!r}; choose 'welch' or 'fft'")
        if method == "fft" and nperseg is not None:
            raise ValueError("method='fft' has one segment, the whole record; leave nperseg out")
        if refine not in ("parabolic", "lsq", None):
            raise ValueError(f"unknown refine {refine!r}; choose 'parabolic', 'lsq' or None")
        self.num_modes = num_modes
        self.dt = dt
        self.method = method
        self.nperseg = nperseg
        self.window = window
        self.detrend = detrend
        self.min_separation = min_separation
        self.refine = refine
        self.register_buffer("freqs", torch.zeros(num_modes, dtype=torch.float64))
        self.register_buffer("power", torch.zeros(num_modes, dtype=torch.float64))
        self.register_buffer("n_modes", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def fit(self, y: Tensor, observed_mask: Tensor | None = None) -> SpectralTimeEmbedding:
        r"""Finds the frequencies. Give it the rows that are trained on, and no others.

        Gaps are filled by lines between their ends. A channel does not count if more than half of
        it is missing or if it is constant. Each series of a batch is a channel of its own.

        Args:
            y (torch.Tensor): The series :math:`[T, N]` or :math:`[B, T, N]`, :obj:`nan` where
                nothing was observed.
            observed_mask (torch.Tensor, optional): Boolean, :obj:`True` = observed, same shape.
                (default: :obj:`None`)

        Returns:
            SpectralTimeEmbedding: itself.

        Raises:
            ValueError: If shapes do not fit, the record is too short, no channel counts, or their
                spectrum has no peak.
        """
        series = standardized_channels(y, observed_mask)
        length = len(series) if self.method == "fft" else self.nperseg
        length = length or segment_length(len(series))
        bins, density = power_spectrum(
            torch.from_numpy(series), self.dt, length, self.window, self.detrend
        )
        power = density.mean(dim=1).numpy()
        peaks = strongest_peaks(power, self.num_modes, self.min_separation)
        if len(peaks) == 0:
            raise ValueError(
                f"the spectrum of {len(series)} rows in segments of {length} has no peak; a record "
                "with several periods in each segment is needed"
            )
        freqs = bins.numpy()[peaks]
        half = bins[1].item() / 2
        if self.refine == "parabolic":
            freqs = freqs + 2 * half * parabolic_offset(power, peaks)
        elif self.refine == "lsq":
            freqs = [least_squares_frequency(series, self.dt, f - half, f + half) for f in freqs]
        for buffer, values in ((self.freqs, freqs), (self.power, power[peaks])):
            buffer.zero_()
            buffer[: len(peaks)] = torch.as_tensor(values)
        self.n_modes.fill_(len(peaks))
        return self

    def forward(self, t: Tensor) -> Tensor:
        if self.n_modes == 0:
            raise ValueError(f"{self!r} knows no frequencies yet; call fit on the training rows")
        t = t if t.dim() > 0 and t.size(-1) == 1 else t.unsqueeze(-1)
        angle = 2 * math.pi * (t.double() * self.freqs).remainder(1)
        waves = torch.stack([angle.sin(), angle.cos()], dim=-1)
        found = torch.arange(self.num_modes, device=t.device) < self.n_modes
        waves = waves.where(found.unsqueeze(-1), 0.0).flatten(-2)
        return waves.to(t.dtype if t.is_floating_point() else torch.get_default_dtype())

    def _apply(
        self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any
    ) -> SpectralTimeEmbedding:
        kept = {"freqs": self.freqs, "power": self.power}
        super()._apply(fn, *args, **kwargs)
        for name, buffer in kept.items():
            moved = getattr(self, name)
            if moved.dtype != buffer.dtype:  # a model in half precision keeps its frequencies
                setattr(self, name, buffer.to(moved.device))
        return self

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.num_modes}, dt={self.dt}, method={self.method!r}, "
            f"refine={self.refine!r})"
        )
