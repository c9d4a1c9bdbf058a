"""A clock for data without a calendar: the dominant frequencies of a wake.

Behind a cylinder vortices are shed at one frequency; its harmonic is felt too, and the whole wake
sways slowly. Probes along the wake feel each wave as it passes, so that no two have the same phase,
and all are noisy. A simulation has no rush hour and no Monday, but it has these beats: a spectral
time embedding finds them on the first half of the record and turns any later time into their sines
and cosines.

A spectrum knows a frequency only to the width of its bins, and a clock that is wrong by half a bin
is out of step long before the record ends. So each peak is refined between the bins. The picture
shows the spectrum, the phase that each clock loses after the rows that it was fitted on, and what
that does to the simplest forecast: a linear map from the embedding to a probe, fitted on the last
seconds of the first half.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyg_stmamba.nn.embedding import SpectralTimeEmbedding, power_spectrum
from pyg_stmamba.visualization import style

MODES = {"sway": 0.3171, "shedding": 2.1374, "harmonic": 4.2748}  # Hz
AMPLITUDES = (0.6, 1.0, 0.5)
DT = 0.02  # s
NOISE = 0.5
CLOCKS = {"bins": None, "parabolic": "parabolic", "least squares": "lsq"}
LOOKS = {
    "bins": (style.WORST, "--"),
    "parabolic": ("#E69F00", "-."),
    "least squares": (style.MODEL, "-"),
}


def wake(num_rows: int, num_probes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Times [T], and what the probes measure [T, N]."""
    random = np.random.default_rng(seed)
    time = DT * np.arange(num_rows)
    place = np.linspace(0, 4, num_probes)  # in wavelengths of the shedding
    values = NOISE * random.normal(size=(num_rows, num_probes)) + random.normal(size=num_probes)
    for frequency, amplitude in zip(MODES.values(), AMPLITUDES):
        delay = place / MODES["shedding"]  # all is carried along at one speed
        angle = 2 * np.pi * frequency * (time[:, None] - delay)
        values += amplitude * random.uniform(0.5, 1, num_probes) * np.sin(angle)
    return torch.from_numpy(time), torch.from_numpy(values)


def forecast(clock: SpectralTimeEmbedding, time: Tensor, probe: Tensor, train: int) -> Tensor:
    """A linear map of the features, fitted on the last eight seconds of the training rows."""
    features = torch.cat([clock(time), torch.ones(len(time), 1)], dim=1)
    rows = slice(train - round(8 / DT), train)
    return features @ torch.linalg.lstsq(features[rows], probe[rows]).solution


@style.house_style
def draw(time: Tensor, y: Tensor, clocks: dict[str, SpectralTimeEmbedding], train: int) -> Figure:
    figure, (spectrum, phase, waves) = style.new_figure(rows=3, height=8.6)

    bins, density = power_spectrum((y[:train] - y[:train].mean(0)) / y[:train].std(0), DT)
    shown = bins < 6
    spectrum.semilogy(bins[shown], density[shown].mean(1), ".-", color=style.FAINT)
    for name, frequency in zip(MODES, clocks["least squares"].freqs.tolist()):
        spectrum.axvline(frequency, color=style.MODEL, linewidth=1.2, zorder=1)
        place = {"xy": (frequency, 0.98), "xycoords": spectrum.get_xaxis_transform(), "va": "top"}
        label = f"{name}\n{frequency:.4f} Hz"
        spectrum.annotate(label, xytext=(5, 0), textcoords="offset points", **place)
    spectrum.set_title("Spectrum of the training rows, mean over the probes; lines: modes found")
    spectrum.set(xlabel="frequency [Hz]", ylabel="power density", xlim=(0, 6), ylim=(5e-3, 50))

    later, end = time[train:], time[train - 1]
    for name, clock in clocks.items():
        color, dash = LOOKS[name]
        lost = (clock.freqs[1] - MODES["shedding"]) * (later - end)
        phase.plot(later, lost, color=color, linestyle=dash, label=name)
    phase.set_title("Phase of the shedding lost since the last training row")
    phase.set(xlabel="time [s]", ylabel="periods", xlim=later[[0, -1]].tolist())
    phase.legend(loc="upper left")

    shown = slice(len(time) - round(3 / DT), len(time))
    waves.plot(time[shown], y[shown, 0], ".", color=style.TRUTH, label="measured")
    for name in ("bins", "least squares"):
        color, dash = LOOKS[name]
        wave = forecast(clocks[name], time, y[:, 0], train)
        waves.plot(time[shown], wave[shown], color=color, linestyle=dash, label=name)
    waves.set_title(f"First probe, {time[-1] - end:.0f} s after the last training row")
    waves.set(xlabel="time [s]", ylabel="velocity", xlim=time[shown][[0, -1]].tolist())
    style.legend_below(figure, waves)
    return figure


def main(
    picture: str | Path = "runs/spectral_time.png", num_rows: int = 6000, num_probes: int = 16
) -> dict[str, float]:
    time, y = wake(num_rows, num_probes, seed=0)
    train = num_rows // 2
    clocks = {
        name: SpectralTimeEmbedding(len(MODES), DT, refine=refine).fit(y[:train])
        for name, refine in CLOCKS.items()
    }
    Path(picture).parent.mkdir(parents=True, exist_ok=True)
    Path(picture).write_bytes(style.png(draw(time, y, clocks, train)))

    truth, result = torch.tensor(list(MODES.values()), dtype=torch.float64), {"noise": NOISE}
    for name, clock in clocks.items():
        print(f"{name:>13}:", *(f"{frequency:.4f} Hz" for frequency in clock.freqs.tolist()))
        error = forecast(clock, time, y[:, 0], train)[train:] - y[train:, 0]
        result[f"frequency error of {name} [Hz]"] = (clock.freqs - truth).abs().max().item()
        result[f"forecast error of {name}"] = error.square().mean().sqrt().item()
    for name, value in result.items():
        print(f"{name}: {value:.4g}")
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
