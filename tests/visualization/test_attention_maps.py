import numpy as np
import pytest

from pyg_stmamba.visualization.attention_maps import plot_attention_maps
from pyg_stmamba.visualization.style import png


def weights(*shape: int) -> np.ndarray:
    logits = np.exp(np.random.default_rng(0).normal(size=shape))
    return logits / logits.sum(-1, keepdims=True)


def panels(figure) -> dict:
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.images}


def test_panels_carry_the_weights() -> None:
    spatial, temporal, joint = weights(3, 4, 4), weights(4, 3, 3), weights(12, 12)
    figure = plot_attention_maps(spatial, temporal, joint)
    shown = panels(figure)
    assert set(shown) == {
        *(f"space: frame {t}" for t in (1, 2, 3)),
        *(f"time: patch {n}" for n in (1, 2, 3, 4)),
        "space and time at once",
    }
    for t in range(3):
        axes = shown[f"space: frame {t + 1}"]
        np.testing.assert_array_equal(axes.images[0].get_array(), 4 * spatial[t])
        assert axes.get_xlabel() == "patch seen"
        written = [text.get_text() for text in axes.texts]
        assert written == [f"{weight:.2f}"[1:] for weight in spatial[t].flat]
    for n in range(4):
        axes = shown[f"time: patch {n + 1}"]
        np.testing.assert_array_equal(axes.images[0].get_array(), 3 * temporal[n])
        assert axes.get_xlabel() == "frame seen"
    axes = shown["space and time at once"]
    np.testing.assert_array_equal(axes.images[0].get_array(), 12 * joint)
    assert sorted({line.get_ydata()[0] for line in axes.lines[::2]}) == [3.5, 7.5]
    limits = {axes.images[0].get_clim() for axes in shown.values()}
    assert limits == {(0, max((12 * joint).max(), (4 * spatial).max(), (3 * temporal).max()))}
    assert png(figure).startswith(b"\x89PNG")


def test_a_whole_weight_is_written() -> None:
    shown = panels(plot_attention_maps(np.ones((2, 1, 1)), np.eye(2)[None]))
    assert [text.get_text() for text in shown["space: frame 1"].texts] == ["1"]
    assert [text.get_text() for text in shown["time: patch 1"].texts] == ["1", ".00", ".00", "1"]


def test_of_many_steps_some_are_drawn() -> None:
    figure = plot_attention_maps(weights(12, 5, 5), weights(5, 12, 12), node="node", step="hour")
    shown = panels(figure)
    assert len(shown) == 4 + 4
    hours = [title for title in shown if title.startswith("space")]
    assert (hours[0], hours[-1]) == ("space: hour 1", "space: hour 12")
    assert "time: node 5" in shown
    assert not shown["space: hour 1"].texts


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"spatial \[3, 4, 4\] and temporal \[3, 4, 4\]"):
        plot_attention_maps(weights(3, 4, 4), weights(3, 4, 4))
    with pytest.raises(ValueError, match=r"3 x 4 tokens, got \[4, 4\]"):
        plot_attention_maps(weights(3, 4, 4), weights(4, 3, 3), weights(4, 4))
