import numpy as np
import pytest
import torch
from torch import nn

from pyg_stmamba.data import Protocol
from pyg_stmamba.nn import SpatialAttention
from pyg_stmamba.training import check_fits, describe, fit, load_ensemble, load_forecaster
from pyg_stmamba.training.checkpoint import Forecaster, differences
from pyg_stmamba.training.forecast_data import windows_of


@pytest.fixture
def saved(tmp_path):
    def save(model, graph, protocol, name="model"):
        state = {f"model.{name}": value for name, value in model.state_dict().items()}
        path = tmp_path / f"{name}.ckpt"
        torch.save({"state_dict": state, "forecaster": describe(model, graph, protocol)}, path)
        return path

    return save


def test_a_model_comes_back_with_all_it_needs(graph, protocol, make_model, saved):
    model = make_model(graph)
    model.scaler.fit(graph.x)
    path = saved(model, graph, protocol)
    assert torch.load(path, weights_only=True)["forecaster"]["class"] == "STMamba"
    loaded = load_forecaster(path)
    assert loaded.protocol == protocol
    assert isinstance(loaded.protocol, Protocol)
    assert not loaded.model.training
    window = windows_of(graph, protocol)["test"][0]
    assert torch.equal(loaded.model(window), model.eval()(window))
    assert loaded.facts == {
        "node_ids": [f"sensor {node}" for node in range(5)],
        "channels": ["speed"],
        "units": ["km/h"],
        "step_seconds": 3600,
        "steps_per_day": 24,
        "edge_features": 1,
    }


def test_several_make_an_ensemble_of_the_same_data(graph, protocol, make_model, saved):
    models = [make_model(graph).eval(), make_model(graph, channels=8).eval()]
    paths = [saved(model, graph, protocol, str(i)) for i, model in enumerate(models)]
    assert type(load_ensemble(paths[:1]).model).__name__ == "STMamba"
    ensemble = load_ensemble(paths)
    window = windows_of(graph, protocol)["test"][0]
    expected = (models[0](window) + models[1](window)) / 2
    torch.testing.assert_close(ensemble.model(window), expected)
    assert differences(ensemble, graph) == []
    assert "nodes: trained on 5" in differences(ensemble, graph.select(graph.node_id[:3]))[0]
    graph.units = ["mph"]
    other = saved(make_model(graph), graph, protocol._replace(horizon=2), "other")
    with pytest.raises(ValueError, match=r"other.ckpt and .*0.ckpt .* differ in protocol, units"):
        load_ensemble([*paths, other])


def test_a_folder_means_its_best_checkpoint(graph, protocol, make_model, tmp_path):
    options = {"max_epochs": 1, "progress": False, "baselines": False}
    result = fit(make_model(graph), graph, protocol, out=tmp_path / "run", **options)
    for path in (tmp_path / "run", tmp_path / "run" / "checkpoints" / "last.ckpt"):
        loaded = load_forecaster(path).model.state_dict()
        assert all(torch.equal(loaded[name], v) for name, v in result.model.state_dict().items())


def test_models_built_from_modules_need_the_model(graph, protocol, make_model, saved):
    model = make_model(graph, spatial=SpatialAttention(4, heads=2))
    path = saved(model, graph, protocol)
    with pytest.raises(ValueError, match=r"built from modules.*model=\.\.\."):
        load_forecaster(path)
    other = make_model(graph, spatial=SpatialAttention(4, heads=2))
    nn.init.zeros_(other.encoder.value_embedding.weight)
    loaded = load_forecaster(path, other)
    assert torch.equal(
        loaded.model.encoder.value_embedding.weight, model.encoder.value_embedding.weight
    )


def test_unknown_classes_need_the_model(graph, protocol, saved):
    class Own(nn.Linear):
        def config(self):
            return {"in_features": 2}

    path = saved(Own(2, 2), graph, protocol)
    with pytest.raises(ValueError, match="holds a Own; known are STMamba"):
        load_forecaster(path)
    assert isinstance(load_forecaster(path, Own(2, 2)).model, Own)


def test_damaged_files_are_refused(tmp_path, graph, protocol, make_model, saved):
    path = saved(make_model(graph), graph, protocol)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no checkpoint at all"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a checkpoint of a forecaster"):
            load_forecaster(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="is not a checkpoint of a forecaster"):
        load_forecaster(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_forecaster(tmp_path / "nowhere")


def forecaster(model, graph, protocol):
    return Forecaster(model, protocol, describe(model, graph, protocol)["facts"])


def test_equal_data_fit(graph, make_graph, protocol, make_model):
    trained = forecaster(make_model(graph), graph, protocol)
    check_fits(trained, make_graph(num_steps=6))
    assert differences(trained, graph) == []


def test_every_difference_is_named(graph, make_graph, protocol, make_model):
    trained = forecaster(make_model(graph), graph, protocol)
    other = make_graph(num_nodes=4, num_steps=5, channels=2, clock=False)
    other.edge_attr = None
    with pytest.raises(ValueError, match="does not fit the data") as caught:
        check_fits(trained, other)
    message = str(caught.value)
    for part in (
        "channels: trained on 1 (speed), given 2 (speed, flow)",
        "nodes: trained on 5 with an embedding each, given 4",
        "window: reads 6 steps, given 5",
        "steps per day: trained on 24, given none",
        "features of an edge: trained on 1, given none",
    ):
        assert part in message


def test_other_nodes_in_the_same_number_differ(graph, make_graph, protocol, make_model):
    trained = forecaster(make_model(graph), graph, protocol)
    other = make_graph()
    other.node_id = ["sensor 0", "sensor 2", "sensor 1", "sensor 3", "sensor 4"]
    assert differences(trained, other) == [
        "nodes: node 1 was 'sensor 1' in training, given 'sensor 2'"
    ]


def test_without_embeddings_any_graph_fits(graph, make_graph, protocol, make_model):
    trained = forecaster(make_model(graph, node_embedding=False), graph, protocol)
    other = make_graph(num_nodes=9)
    other.node_id = [f"new {node}" for node in range(9)]
    assert differences(trained, other) == []


def test_another_step_is_another_day(graph, make_graph, protocol, make_model):
    trained = forecaster(make_model(graph), graph, protocol)
    other = make_graph()
    other.timestamps = torch.from_numpy(np.arange(120) * 1800)[None]
    assert differences(trained, other) == ["steps per day: trained on 24, given 48"]
