import io
import itertools
import sys

import matplotlib
import numpy as np
from matplotlib.image import imread

from pyg_stmamba.visualization.style import (
    DOTS_PER_INCH,
    WIDTH,
    baseline_looks,
    house_style,
    legend_below,
    new_figure,
    png,
    with_unit,
)


def test_with_unit() -> None:
    assert with_unit("speed", "mph") == "speed [mph]"
    assert with_unit("speed", "") == "speed"


def test_a_figure_has_the_common_width() -> None:
    figure, axes = new_figure(rows=2, columns=3, height=4.0)
    assert len(axes) == 6
    picture = imread(io.BytesIO(png(figure)), format="png")
    assert picture.shape[:2] == (int(4.0 * DOTS_PER_INCH), int(WIDTH * DOTS_PER_INCH))


def test_nothing_global_is_touched() -> None:
    before = dict(matplotlib.rcParams)

    @house_style
    def draw() -> None:
        assert matplotlib.rcParams["axes.spines.top"] is False
        new_figure()

    draw()
    draw()
    assert dict(matplotlib.rcParams) == before
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


def test_many_baselines_look_different() -> None:
    looks = list(itertools.islice(baseline_looks(), 12))
    assert len(set(looks)) == 12
    assert all(
        a.color != b.color and a.linestyle != b.linestyle for a, b in itertools.pairwise(looks)
    )


@house_style
def test_the_legend_lies_below_the_data() -> None:
    figure, (axes,) = new_figure()
    axes.plot([0, 1], [0, 1], label="a line")
    legend_below(figure, axes)
    png(figure)
    legend = figure.legends[0].get_window_extent()
    assert legend.y1 <= axes.get_tightbbox().y0 + 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a line"]


def test_a_name_that_the_font_lacks_is_no_warning() -> None:
    figure, (axes,) = new_figure()
    axes.set_title("北京")
    assert np.asarray(imread(io.BytesIO(png(figure)), format="png")).std() > 0
