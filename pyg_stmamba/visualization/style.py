"""The one look of all pictures: palette, sizes, and how a quantity is written beside its unit."""

import io
import itertools
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The colour-blind-safe palette of Okabe and Ito; dashes and markers say the same a second time.
TRUTH = "#3d3d3d"
MODEL = "#0072B2"
WORST = "#D55E00"
FAINT = "#9a9a9a"
ERROR_MAP = "viridis_r"
WIDTH = 9.0
DOTS_PER_INCH = 150


class LineLook(NamedTuple):
    color: str
    linestyle: str
    marker: str


def baseline_looks() -> Iterator[LineLook]:
    """One look after the other, none equal to its neighbours, for as many baselines as come."""
    colors = itertools.cycle(["#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"])
    dashes = itertools.cycle(["--", "-.", ":"])
    markers = itertools.cycle(["s", "^", "D", "v"])
    return map(LineLook, colors, dashes, markers)


house_style = matplotlib.rc_context(
    {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 10.5,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.labelsize": 10.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#6b6b6b",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.8,
        "xtick.color": "#3d3d3d",
        "ytick.color": "#3d3d3d",
        "lines.linewidth": 1.8,
        "legend.frameon": False,
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "timezone": "UTC",
        # Node ids and names come from data files: a dollar sign in them is not a formula.
        "text.parse_math": False,
    }
)


def new_figure(
    rows: int = 1, columns: int = 1, height: float = 3.8, share_x: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure that belongs to no window and to no global state, and its axes in reading order."""
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share_x)
    return figure, list(axes.flat)


def legend_below(figure: Figure, axes: Axes) -> None:
    """One legend under the whole figure, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    columns = len(labels) if len(labels) <= 4 else 3
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def with_unit(quantity: str, unit: str) -> str:
    return f"{quantity} [{unit}]" if unit else quantity


def png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    with warnings.catch_warnings():
        # Names in a script that the font lacks become boxes; whoever prints them spells them out.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(picture, format="png")
    return picture.getvalue()
