import numpy as np
import pytest

from pyg_stmamba.training.mesh.beside_truth import beside_truth


def test_prediction_truth_and_error_side_by_side(flows):
    truth = flows[0]
    prediction = truth.between(5, 9)
    prediction.fields["velocity"] = truth.fields["velocity"][5:9] + np.float32(0.25)
    prediction.fields["speed"] = np.zeros((4, truth.num_nodes, 1))
    both = beside_truth(prediction, truth)
    np.testing.assert_array_equal(
        both.frames("velocity_truth", 1, 3), truth.frames("velocity", 6, 8)
    )
    np.testing.assert_allclose(both.frames("velocity_error"), 0.25, rtol=1e-5)
    np.testing.assert_array_equal(both.frames("pressure_error"), 0)
    assert "speed" in both.fields
    assert "speed_truth" not in both.fields
    assert both.units["velocity_error"] == "m/s"
    np.testing.assert_array_equal(both.times, truth.times[5:9])


def test_a_prediction_without_truth_is_refused(flows):
    truth, prediction = flows[0].between(0, 20), flows[0].between(15, 25)
    with pytest.raises(ValueError, match=r"at t = 0\.1 to 2, has no frame at some of the times of"):
        beside_truth(prediction, truth)
