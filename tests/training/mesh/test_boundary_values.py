import numpy as np
import pytest
import torch

from pyg_stmamba.training.mesh.boundary_values import BoundaryValues, time_of_frame


@pytest.fixture
def flow(flows):
    return flows[0]


def test_held_values_are_the_last_ones(flow):
    last = torch.rand(flow.num_nodes, 2)
    values = BoundaryValues("held", flow, ["velocity"], first=4, steps=1000)
    assert values.at(999, last) is last


def test_values_of_the_data_are_those_at_that_time(flow):
    values = BoundaryValues("data", flow, ["velocity"], first=4, steps=26)
    for step in (0, 25):
        at = values.at(step, torch.zeros(flow.num_nodes, 2))
        np.testing.assert_array_equal(at, flow.fields["velocity"][4 + step])


def test_prescribed_values_may_be_an_array_or_a_function_of_time(flow):
    array = np.random.default_rng(0).random((40, flow.num_nodes, 2))
    zeros = torch.zeros(flow.num_nodes, 2)
    given = BoundaryValues(array, flow, ["velocity"], first=4, steps=40)
    np.testing.assert_allclose(given.at(39, zeros), array[39], rtol=1e-6)

    def speed(time):
        return np.full((flow.num_nodes, 2), time)

    function = BoundaryValues(speed, flow, ["velocity"], first=4, steps=40)
    # Frame 4 is at 0.5, and 39 steps on, after the last one, time goes on.
    assert function.at(0, zeros)[0, 0].item() == pytest.approx(0.5)
    assert function.at(39, zeros)[0, 0].item() == pytest.approx(4.4)
    assert time_of_frame(flow, 29) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("rule", "steps", "message"),
    [
        ("free", 1, "boundary='free' is unknown; choose from 'held', 'data', or give values"),
        ("data", 27, "values for 26 steps, fewer than the 27 of the rollout; roll out at most 26"),
        (np.zeros((3, 20, 2)), 4, "prescribed for 3 steps, fewer than the 4 of the rollout"),
        (np.zeros((3, 19, 2)), 2, r"must be \[steps, 20, S\], got \[3, 19, 2\]"),
        (np.zeros((3, 20)), 2, r"must be \[steps, 20, S\], got \[3, 20\]"),
    ],
)
def test_wrong_values_are_refused(flow, rule, steps, message):
    with pytest.raises(ValueError, match=message):
        BoundaryValues(rule, flow, ["velocity"], first=4, steps=steps)


def test_a_function_of_the_wrong_shape_is_refused(flow):
    values = BoundaryValues(lambda time: np.zeros(2), flow, ["velocity"], first=4, steps=1)
    with pytest.raises(ValueError, match=r"must be \[N, S\] = \[20, 2\] at each step, got \[2\]"):
        values.at(0, torch.zeros(20, 2))
