import pytest

from pyg_stmamba.visualization.lead_time import duration, lead_time, lead_times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 s"),
        (60, "1 min"),
        (2700, "45 min"),
        (3600, "1 h"),
        (5400, "1.5 h"),
        (86400, "24 h"),
        (172800, "2 days"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("horizon", "step", "last", "label"),
    [
        (12, 300, 60, "minutes ahead"),
        (24, 3600, 24, "hours ahead"),
        (7, 86400, 7, "days ahead"),
        (10, 0.01, 0.1, "seconds ahead"),
        (5, None, 5, "steps ahead"),
    ],
)
def test_lead_times(horizon: int, step: float | None, last: float, label: str) -> None:
    values, name = lead_times(horizon, step)
    assert name == label
    assert len(values) == horizon
    assert values[-1] == pytest.approx(last)
    assert values[0] == pytest.approx(last / horizon)


def test_lead_time() -> None:
    assert lead_time(3, 300) == "15 min ahead"
    assert lead_time(3, None) == "step 3"
