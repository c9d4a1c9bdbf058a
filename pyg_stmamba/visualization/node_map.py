"""The nodes of a graph on a map, coloured by their error."""

import networkx
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from .style import ERROR_MAP, FAINT, house_style, legend_below, new_figure, with_unit

# A layout that shows a thousand nodes well is slow for ten thousand and would show a blot anyway.
LARGE_GRAPH = 1000


@house_style
def plot_node_map(
    node_mae: np.ndarray,
    edge_index: np.ndarray,
    positions: np.ndarray | None = None,
    *,
    unit: str = "",
) -> Figure:
    r"""Draws every node as a dot coloured by its mean absolute error over the thin edges.

    Args:
        node_mae: Mean absolute error of each node, in :obj:`unit`; a node without one (not a
            number) becomes a hollow dot.
        edge_index: Source and target node of each edge.
        positions: Latitude and longitude of each node in degrees, or plane coordinates; see
            :func:`looks_geographic`. Without them, or where they are not finite, the layout
            follows the edges (springs, always the same). (default: :obj:`None`)
        unit: Unit of the forecast quantity. (default: :obj:`""`)

    Shapes:
        - **input:** :obj:`node_mae` :math:`(N)`, :obj:`edge_index` :math:`(2, E)`,
          :obj:`positions` :math:`(N, 2)`
        - **output:** a figure with one dot for each node
    """
    node_mae = np.asarray(node_mae, dtype=float)
    edge_index = np.asarray(edge_index, dtype=int).reshape(2, -1)
    places = None if positions is None else np.asarray(positions, dtype=float)
    if places is not None and places.size and len(places) != len(node_mae):
        raise ValueError(
            f"asked for a map of {len(node_mae)} nodes, given positions of shape {places.shape}; "
            f"they need the shape ({len(node_mae)}, 2)"
        )
    if places is None or places.size < 2 * len(node_mae) or not np.isfinite(places).all():
        places, labels = spring_layout(len(node_mae), edge_index), None
    elif looks_geographic(places):
        places, labels = places[:, ::-1], ("longitude [°]", "latitude [°]")
    else:
        places, labels = places[:, :2], ("x", "y")
    figure, (axes,) = new_figure(height=6.5)
    source, target = edge_index[:, edge_index[0] != edge_index[1]]
    axes.add_collection(
        LineCollection(
            list(np.stack([places[source], places[target]], axis=1)),
            colors=FAINT,
            linewidths=float(np.clip(12 / np.sqrt(len(source) + 1), 0.1, 0.8)),
            zorder=1,
        )
    )
    size = float(np.clip(5000 / max(1, len(node_mae)), 4, 90))
    measured = np.isfinite(node_mae)
    if not measured.all():
        x, y = places[~measured].T
        axes.scatter(
            x, y, s=size, facecolors="white", edgecolors=FAINT, label="nothing observed", zorder=2
        )
        legend_below(figure, axes)
    if measured.any():
        # One broken detector must not bleach all the others.
        largest, usual = node_mae[measured].max(), np.percentile(node_mae[measured], 98)
        outlier = largest > 1.5 * usual
        x, y = places[measured].T
        dots = axes.scatter(
            x,
            y,
            c=node_mae[measured],
            s=size,
            cmap=ERROR_MAP,
            vmin=node_mae[measured].min(),
            vmax=usual if outlier else largest,
            edgecolors="#3d3d3d",
            linewidths=0.5 if size > 10 else 0.1,
            zorder=3,
        )
        bar = figure.colorbar(dots, ax=axes, extend="max" if outlier else "neither", shrink=0.8)
        bar.set_label(with_unit("mean absolute error", unit))
    axes.margins(0.06)
    if labels is None:
        axes.set_title("Error of each node (no positions known: laid out by the edges)")
        axes.set_axis_off()
        return figure
    axes.set_title("Error of each node")
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.ticklabel_format(useOffset=False)
    # One degree of longitude is shorter than one of latitude, except at the equator.
    shrink = np.cos(np.deg2rad(places[:, 1].mean())) if labels[0].startswith("longitude") else 1.0
    axes.set_aspect(1 / shrink, adjustable="datalim")
    return figure


def looks_geographic(positions: np.ndarray) -> bool:
    r"""Tells latitude and longitude from plane coordinates.

    Data sets hold either without saying which. Degrees lie in -90 to 90 and -180 to 180, and
    sensors of one region lie close together in comparison to their distance from 0, 0, which
    plane coordinates of a region seldom do: their origin is in the region.
    """
    if positions.shape[1] != 2 or (np.abs(positions) > (90, 180)).any():
        return False
    extent = np.ptp(positions, axis=0).max()
    return bool(extent < np.linalg.norm(positions.mean(0)) / 3)


def spring_layout(num_nodes: int, edge_index: np.ndarray) -> np.ndarray:
    """Places for nodes without positions: neighbours near each other, the same every time."""
    graph = networkx.Graph()
    graph.add_nodes_from(range(num_nodes))
    graph.add_edges_from(edge_index.T.tolist())
    places = networkx.spring_layout(graph, seed=0, iterations=50 if num_nodes <= LARGE_GRAPH else 5)
    return np.array([places[node] for node in range(num_nodes)]).reshape(num_nodes, 2)
