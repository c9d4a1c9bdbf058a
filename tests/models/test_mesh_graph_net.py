import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import MetaLayer
from torch_geometric.utils import scatter

from pyg_stmamba.data.mesh.frame_statistics import frame_statistics
from pyg_stmamba.models.mesh_graph_net import MeshGraphNet
from tests import laws


@pytest.fixture
def batch(mesh_windows):
    return Batch.from_data_list([mesh_windows[1], mesh_windows[9]])


@pytest.fixture
def model(mesh_windows, mesh_arguments):
    model = MeshGraphNet(**mesh_arguments, channels=12, num_steps=3)
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.normal_(parameter)
    return model.fit(frame_statistics(mesh_windows))


def layers(perceptron: nn.Module) -> nn.Sequential:
    linears = [m for m in perceptron.modules() if isinstance(m, nn.Linear)]
    chain = [part for linear in linears for part in (linear, nn.ReLU())][:-1]
    return nn.Sequential(*chain, *[m for m in perceptron.modules() if isinstance(m, nn.LayerNorm)])


class EdgeModel(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, source: Tensor, target: Tensor, edge: Tensor, u, batch) -> Tensor:
        return self.net(torch.cat([target, source, edge], -1))


class NodeModel(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, edge_index: Tensor, edge: Tensor, u, batch) -> Tensor:
        received = scatter(edge, edge_index[1], dim=0, dim_size=x.size(0), reduce="sum")
        return self.net(torch.cat([x, received], -1))


def forecast_of_meta_layers(model: MeshGraphNet, x: Tensor, data: Batch) -> Tensor:
    """One frame [N, S] through MetaLayers of PyG, scaled by hand."""

    def scaled(scaler, values):
        return (values - scaler.mean) / scaler.std

    h = torch.cat(
        [
            scaled(model.state_scaler, x),
            F.one_hot(data.node_type, 7).float(),
            scaled(model.condition_scaler, data.conditions)[data.batch],
            scaled(model.static_scaler, data.static),
        ],
        -1,
    )
    h = layers(model.node_encoder)(h)
    e = layers(model.edge_encoder)(scaled(model.edge_scaler, data.edge_attr))
    for step in model.steps:
        meta = MetaLayer(EdgeModel(layers(step.message)), NodeModel(layers(step.update)))
        change_h, change_e, _ = meta(h, data.edge_index, e)
        h, e = h + change_h, e + change_e
    z = layers(model.decoder)(h)
    moved = torch.where(data.predicted[:, None], x + z[:, :2] * model.change_scaler.std, x)
    return torch.cat([moved, z[:, 2:] * model.output_scaler.std + model.output_scaler.mean], -1)


def test_against_meta_layers_of_pyg(model, batch):
    expected = [forecast_of_meta_layers(model, x, batch) for x in batch.x.unbind(1)]
    y = model(batch)
    laws.close(y, torch.stack(expected, 1), 2e-5)
    assert (y - model(Batch.from_data_list(batch.to_data_list()[::-1]))[:41]).abs().max() > 0.1


def test_as_many_parameters_as_the_networks_of_others():
    """PhysicsNeMo reports 2,332,419 for its cylinder: 6 numbers a node, 3 an edge, 3 out."""
    model = MeshGraphNet({"velocity": 2}, {"pressure": 1}, ["a", "b", "c", "d"], 3)
    assert (model.node_channels, len(model.steps)) == (6, 15)
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_332_419


def test_frames_are_samples_of_their_own(model, batch):
    y = model(batch)
    for t in range(6):
        frame, state = model.step(batch.x[:, t], batch)
        laws.close(frame, y[:, t], 1e-5)
        assert state is None
    assert model.streams


def test_meshes_in_a_batch_do_not_mix(model, batch):
    one_by_one = torch.cat([model(data) for data in batch.to_data_list()])
    laws.close(model(batch), one_by_one, 1e-5)


def test_influence_ends_after_as_many_edges_as_steps(model, mesh_windows):
    data = mesh_windows[0]
    x = data.x.clone().requires_grad_()
    data.x = x
    node = int(data.predicted.nonzero()[0])
    reached = torch.autograd.grad(model(data)[node].sum(), x)[0].abs().sum((1, 2)) > 0
    near = torch.zeros(24, dtype=torch.bool)
    near[node] = True
    for _ in range(3):
        near[data.edge_index[0, near[data.edge_index[1]]]] = True
    assert torch.equal(reached, near)


def test_recomputing_changes_nothing_but_memory(model, mesh_windows, batch, monkeypatch):
    again = MeshGraphNet(**model.config() | {"recompute": True})
    again.load_state_dict(model.state_dict())
    for either in (model, again):
        either.loss(batch).backward()
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        laws.close(a.grad, b.grad, 1e-6)
    calls = []
    hook = again.steps[0].message.first  # read once in the forward, once in the backward pass
    hooked = type(again.steps[0])._hidden_messages
    monkeypatch.setattr(
        type(again.steps[0]),
        "_hidden_messages",
        lambda self, *a: (calls.append(self.message.first), hooked(self, *a))[1],
    )
    again.loss(batch).backward()
    assert sum(call is hook for call in calls) == 2
    with torch.no_grad():
        again.loss(batch)
    assert sum(call is hook for call in calls) == 3


def test_all_parameters_learn(model, batch):
    model.loss(batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_reset_copies_and_repr(model, batch):
    laws.copies_are_equal(model, lambda model: model(batch))
    before = model(batch)
    scalers = model.state_scaler.mean.clone()
    model.reset_parameters()
    assert not torch.equal(model(batch), before)
    assert torch.equal(model.state_scaler.mean, scalers)
    assert str(model) == ("MeshGraphNet(velocity -> velocity, pressure, channels=12, num_steps=3)")
