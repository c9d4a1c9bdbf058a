"""Who attends to whom, in space, in time, and in both at once."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import DOTS_PER_INCH, WIDTH, house_style

ATTENTION_MAP = "viridis"
MOST_PANELS = 4
# Larger maps have no room for the numbers.
FEW_TOKENS = 4


@house_style
def plot_attention_maps(
    spatial: np.ndarray,
    temporal: np.ndarray,
    joint: np.ndarray | None = None,
    *,
    node: str = "patch",
    step: str = "frame",
) -> Figure:
    r"""Draws the attention among the nodes at each step, that among the steps of each node and,
    beside both, that among all nodes at all steps.

    A row says how one token shares its attention out. The color counts even shares, so that maps
    of any size compare: 1 is what a token gets that is as good as any other.

    Args:
        spatial: The weights among the nodes at each step.
        temporal: The weights among the steps of each node.
        joint: The weights among all tokens, ordered by step, then by node.
            (default: :obj:`None`)
        node: What a node is called. (default: :obj:`"patch"`)
        step: What a step is called. (default: :obj:`"frame"`)

    Shapes:
        - **input:** :obj:`spatial` :math:`(T, N, N)`, :obj:`temporal` :math:`(N, T, T)`,
          :obj:`joint` :math:`(T \cdot N, T \cdot N)`
        - **output:** a figure with a panel for each map, of more than four steps or nodes for
          four of them
    """
    steps, nodes = len(spatial), len(temporal)
    if spatial.shape != (steps, nodes, nodes) or temporal.shape != (nodes, steps, steps):
        raise ValueError(
            f"asked for the maps of T steps and N nodes, given spatial {list(spatial.shape)} and "
            f"temporal {list(temporal.shape)}; they need the shapes [T, N, N] and [N, T, T]"
        )
    if joint is not None and joint.shape != (steps * nodes,) * 2:
        raise ValueError(
            f"joint needs one row for each of {steps} x {nodes} tokens, got {list(joint.shape)}"
        )
    at_steps, of_nodes = _some(steps), _some(nodes)
    columns = max(len(at_steps), len(of_nodes))
    layout = [
        [f"space {i}" if i < len(at_steps) else "." for i in range(columns)],
        [f"time {i}" if i < len(of_nodes) else "." for i in range(columns)],
    ]
    widths = [1.0] * columns
    if joint is not None:
        layout = [row + ["joint"] * 2 for row in layout]
        widths += [1.25] * 2  # as high as two panels with what is between them
    height = 2 * WIDTH / sum(widths) + 1.9  # square panels, their titles and labels, the bar
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")
    axes: dict[str, Axes] = figure.subplot_mosaic(layout, width_ratios=widths)  # type: ignore[arg-type]

    maps = {f"space {i}": spatial[t] for i, t in enumerate(at_steps)}
    maps |= {f"time {i}": temporal[n] for i, n in enumerate(of_nodes)}
    if joint is not None:
        maps["joint"] = joint
    most = max((weights * len(weights)).max() for weights in maps.values())
    for name, weights in maps.items():
        image = axes[name].imshow(weights * len(weights), ATTENTION_MAP, vmin=0, vmax=most)
        axes[name].set_anchor("N")
        axes[name].grid(False)
        axes[name].spines[:].set_visible(False)
        axes[name].tick_params(length=0, labelsize=8)
        if len(weights) <= FEW_TOKENS:
            _write_weights(axes[name], weights, most)
    for i, t in enumerate(at_steps):
        _name_tokens(axes[f"space {i}"], f"space: {step} {t + 1}", node, nodes, first=i == 0)
    for i, n in enumerate(of_nodes):
        _name_tokens(axes[f"time {i}"], f"time: {node} {n + 1}", step, steps, first=i == 0)
    if joint is not None:
        _name_steps(axes["joint"], step, steps, nodes)
    bar = figure.colorbar(
        image, ax=list(axes.values()), location="bottom", shrink=0.5, aspect=40, panchor=False
    )
    bar.set_label("attention, in even shares")
    bar.outline.set_visible(False)
    return figure


def _some(count: int) -> list[int]:
    """All places, or evenly spread ones, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, MOST_PANELS)).round().astype(int).tolist()


def _write_weights(axes: Axes, weights: np.ndarray, most: float) -> None:
    for (row, column), weight in np.ndenumerate(weights):
        bright = weight * len(weights) > 0.6 * most
        axes.text(
            column,
            row,
            f"{weight:.2f}"[-3:] if weight < 0.995 else "1",
            ha="center",
            va="center",
            fontsize=7,
            color="black" if bright else "white",
        )


def _name_tokens(axes: Axes, title: str, token: str, count: int, first: bool) -> None:
    axes.set_title(title, fontsize=9.5)
    ticks = np.arange(0, count, max(1, count // 4))
    axes.set_xticks(ticks, ticks + 1)
    axes.set_yticks(ticks, ticks + 1)
    axes.set_xlabel(f"{token} seen", fontsize=9)
    if first:
        axes.set_ylabel(f"{token} that looks", fontsize=9)


def _name_steps(axes: Axes, step: str, steps: int, nodes: int) -> None:
    axes.set_title("space and time at once", fontsize=9.5)
    for border in nodes * np.arange(1, steps) - 0.5:
        axes.axhline(border, color="white", linewidth=0.8)
        axes.axvline(border, color="white", linewidth=0.8)
    each = max(1, steps // 8)
    middles = nodes * np.arange(0, steps, each) + (nodes - 1) / 2
    axes.set_xticks(middles, np.arange(1, steps + 1, each))
    axes.set_yticks(middles, np.arange(1, steps + 1, each))
    axes.set_xlabel(f"{step} seen", fontsize=9)
    axes.set_ylabel(f"{step} that looks", fontsize=9)
