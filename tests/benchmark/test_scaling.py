import math

from matplotlib.image import imread


def test_slopes(script):
    slope = script("scaling").slope
    assert math.isclose(slope([2, 4, 8], [3.0, 12.0, 48.0]), 2.0)
    assert math.isnan(slope([2], [3.0]))


def test_the_picture(script, graph, tmp_path, capsys):
    out = tmp_path / "scaling.png"
    start = graph._replace(steps=2, windows=1)
    arguments = ["--out", str(out), "--repeats=1", "--doublings=1"]
    script("scaling").main(arguments, start)
    picture = imread(out)
    assert picture.shape[0] > picture.shape[1] > 1000
    colors = {tuple(color) for color in picture[::3, ::3].reshape(-1, picture.shape[-1]).tolist()}
    assert len(colors) > 100
    assert capsys.readouterr().out == f"{out}\n"
