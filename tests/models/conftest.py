import numpy as np
import pytest

from pyg_stmamba.data import TemporalGraph

RING = np.array([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]])


@pytest.fixture
def graph() -> TemporalGraph:
    """Five nodes on a ring, three weeks of hourly values of two channels with gaps."""
    rng = np.random.default_rng(0)
    steps = 3 * 7 * 24
    daily = 10 * np.sin(2 * np.pi * np.arange(steps) / 24)
    values = 50 + daily + rng.normal(size=(5, steps)).cumsum(1)
    values = np.stack([values, rng.uniform(100, 900, (5, steps))], axis=-1)
    mask = rng.random(values.shape) < 0.9
    return TemporalGraph.from_arrays(
        values.transpose(1, 0, 2),
        mask=mask.transpose(1, 0, 2),
        timestamps=np.datetime64("2024-01-01") + np.arange(steps) * np.timedelta64(1, "h"),
        edge_index=RING,
        edge_weight=rng.uniform(0.1, 1, 5),
    )
