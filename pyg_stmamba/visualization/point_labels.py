"""Names beside points, none over another."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

# Where a label may stand, in points from its own: near ones first.
DISTANCES = (6.0, 13.0, 23.0, 35.0)
ANGLES = np.radians([0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200])
POINT_RADIUS = 5.0
# Free space before and after a name.
GAP = 2.0


def label_points(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    names: Sequence[str],
    colors: Sequence[str],
    order: Sequence[int],
    size: float = 8.0,
) -> list[Annotation]:
    r"""Writes the name of each point beside it, where it covers neither a point nor another name
    and stays within the axes; further away with a line to its point. A name that fits nowhere is
    left out.

    The axes must have their final place and limits.

    Args:
        axes: Where the points are drawn.
        x: The first coordinate of each point.
        y: The second one.
        names: The name of each.
        colors: The color of each name.
        order: Which point gets its name first, and so on.
        size: Size of the letters, in points. (default: :obj:`8.0`)
    """
    pixels = axes.figure.dpi / 72
    points = axes.transData.transform(np.column_stack([x, y]))
    radius = POINT_RADIUS * pixels
    taken = [Bbox.from_extents(*(point - radius), *(point + radius)) for point in points]
    inside = axes.get_window_extent()
    written = []
    for index in order:
        if not np.isfinite(points[index]).all():
            continue
        label = axes.annotate(
            names[index],
            (x[index], y[index]),
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            color=colors[index],
            zorder=4,
        )
        area = Text.get_window_extent(label)
        half = np.array([area.width / 2 + GAP * pixels, area.height / 2])
        place = _free_place(points[index], half, pixels, inside, taken)
        if place is None:
            label.remove()
            continue
        taken.append(place)
        label.set_position((place.min + half - points[index]) / pixels)
        end = np.clip(points[index], place.min, place.max)
        if np.linalg.norm(end - points[index]) > 2 * radius:
            line = axes.transData.inverted().transform([points[index], end])
            axes.plot(*line.T, color=colors[index], linewidth=0.6, zorder=2, label="_leader")
        written.append(label)
    return written


def _free_place(
    point: np.ndarray,
    half: np.ndarray,
    pixels: float,
    inside: Bbox,
    taken: Sequence[Bbox],
) -> Bbox | None:
    """The first free area for a label of this half width and height."""
    for distance in DISTANCES:
        for angle in ANGLES:
            toward = np.array([np.cos(angle), np.sin(angle)])
            # From the point to the border of the label it is the distance, in whichever direction.
            center = point + (distance * pixels + half) * toward
            area = Bbox([center - half, center + half])
            is_within = inside.containsx(area.x0) and inside.containsx(area.x1)
            is_within &= inside.containsy(area.y0) and inside.containsy(area.y1)
            if is_within and not any(area.overlaps(other) for other in taken):
                return area
    return None
