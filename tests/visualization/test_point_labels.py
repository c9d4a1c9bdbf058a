import itertools

import numpy as np
import pytest
from matplotlib.text import Text

from pyg_stmamba.visualization.point_labels import POINT_RADIUS, label_points
from pyg_stmamba.visualization.style import new_figure, png


@pytest.fixture
def label():
    def run(x, y, names, order=None):
        """The axes and the names that were written, after everything is drawn."""
        figure, (axes,) = new_figure()
        axes.plot(x, y, linestyle="", marker="o")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        points = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        order = range(len(names)) if order is None else order
        written = label_points(axes, *points, names, ["#000000"] * len(names), order)
        png(figure)
        return axes, written

    return run


def test_no_name_covers_another_or_a_point(label):
    x, y = np.random.default_rng(0).uniform(0.3, 0.7, (2, 25))
    axes, written = label(x, y, [f"operator {n}" for n in range(25)])
    assert len(written) > 15
    areas = [Text.get_window_extent(text) for text in written]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(areas, 2))
    frame = axes.get_window_extent()
    radius = POINT_RADIUS * axes.figure.dpi / 72 - 1
    for area in areas:
        assert frame.x0 <= area.x0 < area.x1 <= frame.x1
        assert frame.y0 <= area.y0 < area.y1 <= frame.y1
        for point in axes.transData.transform(np.column_stack([x, y])):
            assert np.linalg.norm(point - np.clip(point, area.min, area.max)) > radius


def test_each_name_stands_at_its_own_point(label):
    x, y = np.array([0.2, 0.8, 0.2, 0.97]), np.array([0.2, 0.8, 0.8, 0.5])
    names = ["a", "b", "c", "a name too long for the border"]
    axes, written = label(x, y, names)
    assert [text.get_text() for text in written] == names
    assert Text.get_window_extent(written[-1]).x1 <= axes.get_window_extent().x1
    points = axes.transData.transform(np.column_stack([x, y]))
    for text, point in zip(written, points):
        area = Text.get_window_extent(text)
        gap = np.linalg.norm(point - np.clip(point, area.min, area.max))
        assert gap < 12 * axes.figure.dpi / 72
    assert len(axes.lines) == 1


def test_a_name_further_away_has_a_line_to_its_point(label):
    x, y = np.full(9, 0.5), np.full(9, 0.5)
    axes, written = label(x, y, ["a name of some length"] * 9)
    leaders = [line for line in axes.lines if line.get_label() == "_leader"]
    assert 0 < len(leaders) < len(written)
    for line in leaders:
        assert tuple(line.get_xydata()[0]) == pytest.approx((0.5, 0.5))


def test_what_fits_nowhere_is_left_out_and_the_first_in_order_are_not(label):
    x, y = np.full(60, 0.5), np.full(60, 0.5)
    names = [f"operator {n}" for n in range(60)]
    axes, written = label(x, y, names, order=range(59, -1, -1))
    assert 4 < len(written) < 60
    assert [text.get_text() for text in written] == names[: -len(written) - 1 : -1]
    assert set(axes.texts) == set(written)


def test_points_that_are_nowhere_have_no_name(label):
    _, written = label([0.5, np.nan], [0.5, 0.5], ["a", "b"])
    assert [text.get_text() for text in written] == ["a"]
