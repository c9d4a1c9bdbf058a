import math

import pytest

from pyg_stmamba.visualization.circumstances import circumstances, number


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seconds", 119.96, "120.0 s"),
        ("seconds", 432, "432 s (7.2 min)"),
        ("step_seconds", 0.01234, "0.0123 s"),
        ("seconds", math.inf, "inf"),
        ("parameters", 2332931, "2,332,931"),
        ("nodes", ["normal", "outflow"], "normal, outflow"),
        ("simulations", {"train": 20, "val": 4}, "train: 20, val: 4"),
        ("epochs", 12345, "12345"),
    ],
)
def test_how_a_fact_is_said(name, value, said):
    _, table = circumstances({name: value}, {}, "", ())
    assert f">{name.replace('_', ' ')}</td>" in table
    assert f">{said}</td>" in table


def test_what_there_is_something_for():
    assert circumstances({}, {}, "", ()) == []
    assert circumstances({"test": 1}, {}, "", ("test",)) == []
    headings = [
        part for part in circumstances({"a": 1}, {"torch": "2"}, "b: 3", ()) if "h2" in part
    ]
    assert headings == ["<h2>The run</h2>", "<h2>Versions</h2>", "<h2>Configuration</h2>"]
    text = "".join(circumstances({}, {"torch": "2"}, "b: <3>", ()))
    assert "torch" in text
    assert "b: &lt;3&gt;" in text


def test_numbers_of_files():
    assert (number(3), number(0.5)) == (3.0, 0.5)
    assert all(math.isnan(number(value)) for value in (None, "3", [1]))
