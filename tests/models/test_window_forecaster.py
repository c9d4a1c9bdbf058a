import pytest

from pyg_stmamba.data import Protocol
from pyg_stmamba.models import STMamba, TransformerForecaster

PROTOCOL = Protocol(window=6, horizon=4, target_channels=(1,))


@pytest.mark.parametrize("made", [STMamba, TransformerForecaster])
def test_what_the_data_decide(graph, made):
    arguments = made.data_arguments(graph, PROTOCOL)
    assert arguments == {
        "in_channels": 2,
        "window": 6,
        "horizon": 4,
        "target_channels": (1,),
        "num_nodes": 5,
        "steps_per_day": 24,
        "edge_dim": 1,
    }
    graph.edge_attr = None
    assert made.data_arguments(graph, PROTOCOL)["edge_dim"] is None
    model = made(**arguments, weekly_profile=True)
    assert model.config().items() >= arguments.items()
    assert (model.num_nodes, model.steps_per_day) == (5, 24)
    assert model.scaler is model.encoder.scaler
    assert model.weekly_profile is model.encoder.weekly_profile is not None
    model.config()["window"] = 7
    assert model.config()["window"] == 6


@pytest.mark.parametrize("made", [STMamba, TransformerForecaster])
def test_what_plays_no_part(made):
    model = made(2, window=6)
    assert (model.num_nodes, model.steps_per_day, model.weekly_profile) == (None, None, None)
