"""Spectra of signals of a flow, predicted and true."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from scipy.signal import periodogram

from pyg_stmamba.visualization.style import (
    FAINT,
    MODEL,
    TRUTH,
    house_style,
    legend_below,
    new_figure,
    with_unit,
)

# What is weaker than the peak by more than this is rounding, not flow.
LOWEST = 1e-8


@house_style
def plot_spectra(
    time: np.ndarray,
    signals: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    frequencies: Mapping[str, float] | None = None,
    model: str = "model",
    frequency_unit: str = "Hz",
) -> Figure:
    r"""Draws the power of signals by frequency, side by side, the prediction over the truth.

    Steps at which the prediction is not finite are left out of both.

    Args:
        time: Time of each step, at equal distances.
        signals: Prediction and truth by name.
        frequencies: The true dominant frequency by name, drawn as a dotted line.
            (default: :obj:`None`)
        model: The model's name in the legend. (default: :obj:`"model"`)
        frequency_unit: Unit of frequency. (default: :obj:`"Hz"`)

    Shapes:
        - **input:** :obj:`time` :math:`(T)`, each signal a pair of :math:`(T)`
        - **output:** a figure with one panel a signal
    """
    if not signals:
        raise ValueError("there is no signal to draw; at least one is needed")
    rate = 1 / float(np.median(np.diff(time)))
    figure, panels = new_figure(columns=len(signals), height=3.6)
    for axes, (name, (prediction, truth)) in zip(panels, signals.items()):
        reached = np.isfinite(prediction)
        highest = 0.0
        for signal, color, dashes, label in (
            (truth, TRUTH, "-", "truth"),
            (prediction, MODEL, "--", model),
        ):
            lines, power = periodogram(np.asarray(signal)[reached], rate, "hann", detrend="linear")
            axes.plot(lines[1:], power[1:], color=color, linestyle=dashes, label=label)
            highest = max(highest, float(power[1:].max()))
        if highest > 0:
            axes.set_yscale("log")
            axes.set_ylim(highest * LOWEST, highest * 3)
        if (found := (frequencies or {}).get(name)) is not None:
            axes.axvline(found, color=FAINT, linestyle=":", linewidth=1.2, zorder=1)
        axes.set_title(name)
        axes.set_xlabel(with_unit("frequency", frequency_unit))
        axes.set_ylabel("power density")
    legend_below(figure, panels[0])
    return figure
