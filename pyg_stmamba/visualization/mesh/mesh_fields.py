"""Fields on a plane mesh as pictures: one panel a field, all on one colour scale."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import TriMesh
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.visualization.style import DOTS_PER_INCH, WIDTH, house_style, with_unit

# Less than this share of the nodes may lie beyond either end of the colour scale.
BEYOND = 0.002


class ColorScale(NamedTuple):
    """What colour a value has: from ``low`` to ``high``, both ends of one kind of map."""

    low: float
    high: float
    colors: str


def triangulation(mesh: Mesh) -> Triangulation:
    r"""The triangles of a plane mesh, its quadrilaterals cut in two.

    Args:
        mesh: The mesh.

    Raises:
        ValueError: If the mesh is not plane or has no triangle and no quadrilateral.
    """
    if mesh.dim != 2:
        raise ValueError(
            "pictures are drawn of plane meshes, this one has three dimensions; write its fields "
            "to VTU files and look at them in ParaView"
        )
    triangles = [mesh.cells["triangle"]] if "triangle" in mesh.cells else []
    if "quad" in mesh.cells:
        triangles += [mesh.cells["quad"][:, [0, 1, 2]], mesh.cells["quad"][:, [0, 2, 3]]]
    if not sum(map(len, triangles)):
        kinds = ", ".join(mesh.cells) or "none"
        raise ValueError(f"pictures need triangles or quads, the cells of the mesh are: {kinds}")
    return Triangulation(mesh.pos[:, 0], mesh.pos[:, 1], np.concatenate(triangles))


def color_scale(values: Sequence[np.ndarray]) -> ColorScale:
    r"""A scale that holds 0 and all but a few stray values: from 0 up where none is negative, and
    alike to both sides of 0 where some are.

    Args:
        values: Arrays of any shape; what is not finite does not count.
    """
    joined = np.concatenate([np.ravel(part) for part in values])
    joined = joined[np.isfinite(joined)]
    low, high = np.quantile(joined, [BEYOND, 1 - BEYOND]) if len(joined) else (0.0, 1.0)
    if low >= 0:
        return ColorScale(0.0, float(high) or 1.0, "viridis")
    widest = float(max(-low, high))
    return ColorScale(-widest, widest, "RdBu_r")


def magnitude(field: np.ndarray) -> np.ndarray:
    r"""The length of a vector, or the one channel of a scalar as it is.

    Args:
        field: Values, channels last.

    Shapes:
        - **input:** :math:`(..., C)`
        - **output:** :math:`(...)`
    """
    field = np.asarray(field, dtype=float)
    return field[..., 0] if field.shape[-1] == 1 else np.sqrt(np.square(field).sum(-1))


def draw_field(
    axes: Axes, triangles: Triangulation, values: np.ndarray, scale: ColorScale
) -> TriMesh:
    r"""Draws one value a node into a panel, colours running smoothly between nodes.

    Args:
        axes: The panel.
        triangles: What :func:`triangulation` returns.
        values: One value a node; a triangle with a node that is not finite stays empty.
        scale: What colour a value has.
    """
    drawn = axes.tripcolor(
        triangles,
        np.asarray(values, dtype=float),
        shading="gouraud",
        cmap=scale.colors,
        vmin=scale.low,
        vmax=scale.high,
    )
    axes.set_aspect("equal")
    axes.margins(0.01)
    axes.set_axis_off()
    return drawn


@house_style
def plot_mesh_fields(
    mesh: Mesh,
    fields: Mapping[str, np.ndarray],
    *,
    scale: ColorScale | None = None,
    quantity: str = "",
    unit: str = "",
    title: str = "",
) -> Figure:
    r"""Draws fields on a mesh, one panel each under its name, on one colour scale.

    Args:
        mesh: A plane mesh.
        fields: One value a node, by title.
        scale: What colour a value has. (default: :obj:`None`, from the values)
        quantity: What is drawn, beside the colour bar. (default: :obj:`""`)
        unit: Its unit. (default: :obj:`""`)
        title: Over all panels. (default: :obj:`""`)

    Shapes:
        - **input:** each field :math:`(N)`
        - **output:** a figure with one panel a field and one colour bar
    """
    triangles = triangulation(mesh)
    scale = scale or color_scale(list(fields.values()))
    figure, panels = field_panels(mesh, len(fields))
    for axes, (name, values) in zip(panels, fields.items()):
        drawn = draw_field(axes, triangles, values, scale)
        axes.set_title(name)
    color_bar(figure, drawn, panels, scale, with_unit(quantity, unit))
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def field_panels(
    mesh: Mesh, count: int, width: float = WIDTH, dots_per_inch: float = DOTS_PER_INCH
) -> tuple[Figure, list[Axes]]:
    """Panels one above the other for a long domain, side by side for a tall one, as large as the
    shape of the domain makes them."""
    across, up = np.ptp(mesh.pos, axis=0)
    shape = float(np.clip(up / across, 0.08, 4.0))
    stacked = shape < 0.7
    rows, columns = (count, 1) if stacked else (1, count)
    # An inch and a bit is for the colour bar and its label, the rest for titles.
    height = rows * (0.38 + shape * (width - 1.2) / columns)
    figure = Figure(figsize=(width, height), dpi=dots_per_inch, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def color_bar(
    figure: Figure, drawn: TriMesh, panels: Sequence[Axes], scale: ColorScale, label: str
) -> Colorbar:
    """One bar for all panels, pointed where values may lie beyond its ends."""
    return figure.colorbar(
        drawn,
        ax=list(panels),
        label=label,
        shrink=0.9,
        aspect=30,
        pad=0.01,
        extend="both" if scale.low < 0 else "max",
    )
