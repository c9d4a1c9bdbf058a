import numpy as np
import pytest

from pyg_stmamba.visualization.mesh import plot_spectra
from pyg_stmamba.visualization.style import png

TIME = 0.01 * np.arange(400)


def wave(frequency: float) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * TIME)


def test_peaks_stand_where_the_signals_oscillate():
    signals = {"lift": (wave(3.5), wave(3.0)), "probe": (wave(7.0), wave(6.0))}
    figure = plot_spectra(TIME, signals, frequencies={"lift": 3.0})
    for axes, wanted in zip(figure.axes, ((3.0, 3.5), (6.0, 7.0))):
        peaks = [line.get_xdata()[np.argmax(line.get_ydata())] for line in axes.lines[:2]]
        assert np.allclose(peaks, wanted, atol=0.13)
        assert [line.get_label() for line in axes.lines[:2]] == ["truth", "model"]
        assert axes.get_yscale() == "log"
        low, high = axes.get_ylim()
        highest = max(line.get_ydata().max() for line in axes.lines[:2])
        assert low < 1e-7 * highest < highest < high
    dotted = figure.axes[0].lines[2]
    assert (dotted.get_xdata()[0], dotted.get_linestyle()) == (3.0, ":")
    assert len(figure.axes[1].lines) == 2
    assert png(figure)


def test_both_end_where_the_prediction_does():
    prediction = np.where(TIME < 2, wave(3), np.nan)
    (axes,) = plot_spectra(TIME, {"lift": (prediction, wave(3))}).axes
    for line in axes.lines:
        assert len(line.get_xdata()) == 100


def test_a_constant_has_no_power():
    assert png(plot_spectra(TIME, {"lift": (np.ones(400), np.ones(400))}))


def test_bad_input():
    with pytest.raises(ValueError, match="no signal to draw"):
        plot_spectra(TIME, {})
