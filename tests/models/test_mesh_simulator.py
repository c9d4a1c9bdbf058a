import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch_geometric.data import Batch, Data

from pyg_stmamba.data.mesh.frame_statistics import frame_statistics
from pyg_stmamba.models.mesh_simulator import MeshSimulator
from pyg_stmamba.nn import SpatialGAT, TemporalMamba
from pyg_stmamba.nn.spatial.interaction import SpatialInteraction
from tests import laws

OPTIONS: dict[str, dict[str, Any]] = {
    "interaction, mamba": {},
    "gat, performer": {"spatial": "gat", "temporal": "performer"},
    "gatv2, factorized, post": {"spatial": "gatv2", "temporal": "factorized", "norm": "post"},
    "dot, attention, feed-forward": {
        "spatial": "dot",
        "temporal": "attention",
        "feed_forward": "swiglu",
    },
    "attention, mamba, no change": {"spatial": "attention", "last_change": False},
    "alternating": {"spatial": ["interaction", None], "temporal": [None, "mamba"]},
    "waves": {"spectral_time": 2},
}
LOCAL = [name for name in OPTIONS if not name.startswith(("attention", "alternating"))]


class OnMesh(nn.Module):
    """A mesh model on its meshes, as a temporal operator."""

    def __init__(self, model: MeshSimulator, data: Data):
        super().__init__()
        self.model, self.data, self.causal = model, data, True

    def forward(self, x: Tensor, mask: None = None) -> Tensor:
        data = self.data.clone()
        data.x = x
        return self.model(data)

    def prefill(self, x: Tensor, state: Any = None, mask: None = None) -> Any:
        return self.model.prefill(x, self.data, state)

    def step(self, x: Tensor, state: Any = None, mask: None = None) -> Any:
        return self.model.step(x, self.data, state)


def build(windows, arguments, **options) -> MeshSimulator:
    torch.manual_seed(1)
    small = {"channels": 8, "num_layers": 2, "d_state": 4, "num_heads": 2}
    model = MeshSimulator(**{**arguments, **small, **options}).eval()
    for parameter in (model.decoder.last.weight, model.decoder.last.bias):
        nn.init.normal_(parameter)
    if model.spectral_time is not None:
        model.spectral_time.freqs.copy_(torch.tensor([0.05, 0.21]))
        model.spectral_time.n_modes.fill_(2)
    return model.fit(frame_statistics(windows))


@pytest.fixture(params=OPTIONS)
def model(request, mesh_windows, mesh_arguments):
    return build(mesh_windows, mesh_arguments, **OPTIONS[request.param])


@pytest.fixture
def batch(mesh_windows):
    return Batch.from_data_list([mesh_windows[1], mesh_windows[9]])


def test_stream(model, batch):
    op = OnMesh(model, batch)
    laws.whole_is_chunks_is_steps(op, batch.x, 1e-5)
    laws.states_are_values(op, batch.x)


def test_causality(model, batch):
    for training in (False, True):
        op = OnMesh(model.train(training), batch)
        laws.the_future_moves_nothing(op, batch.x)
    laws.the_past_moves_the_present(OnMesh(model.eval(), batch), batch.x)


def test_meshes_in_a_batch_do_not_mix(model, batch):
    parts = batch.to_data_list()
    laws.close(model(batch), torch.cat([model(data) for data in parts]), 1e-5)
    again = model(Batch.from_data_list(parts[::-1]))
    laws.close(model(batch), torch.cat([again[17:], again[:17]]), 1e-5)


def test_order_of_nodes_and_edges_does_not_matter(model, mesh_windows):
    data = mesh_windows[3]
    nodes, edges = torch.randperm(24), torch.randperm(data.edge_index.size(1))
    place = torch.empty_like(nodes).scatter_(0, nodes, torch.arange(24))
    other = data.clone()
    for name in ("x", "y", "node_type", "predicted", "static"):
        other[name] = data[name][nodes]
    other.edge_index = place[data.edge_index[:, edges]]
    other.edge_attr = data.edge_attr[edges]
    laws.close(model(other), model(data)[nodes], 1e-5)
    laws.close(model.loss(other), model.loss(data), 1e-5)


@pytest.mark.parametrize("name", LOCAL)
def test_influence_ends_after_as_many_edges_as_blocks(name, mesh_windows, mesh_arguments):
    model = build(mesh_windows, mesh_arguments, **OPTIONS[name])
    data = mesh_windows[0]
    data.x = data.x.clone().requires_grad_()
    node = int(data.predicted.nonzero()[0])
    reached = torch.autograd.grad(model(data)[node].sum(), data.x)[0].abs().sum((1, 2)) > 0
    near = torch.zeros(24, dtype=torch.bool)
    near[node] = True
    for _ in range(2):
        near[data.edge_index[0, near[data.edge_index[1]]]] = True
    assert torch.equal(reached, near)


def test_lonely_nodes_are_harmless(model, mesh_windows):
    data = mesh_windows[0]
    for kept in (data.edge_index.size(1) // 2, 0):
        data.edge_index, data.edge_attr = data.edge_index[:, :kept], data.edge_attr[:kept]
        assert model(data).isfinite().all()
        model.zero_grad()
        model.loss(data).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_all_parameters_learn(model, batch):
    model.train().loss(batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_copies_config_and_inputs(model, batch):
    laws.copies_are_equal(model, lambda model: model(batch))
    again = MeshSimulator(**model.config()).eval()
    again.load_state_dict(model.state_dict(), strict=True)
    laws.same(again(batch), model(batch))
    before = batch.clone()
    model.loss(batch).backward()
    for key in before.keys():  # noqa: SIM118
        laws.same(batch[key], before[key])


def test_starts_as_persistence(mesh_windows, mesh_arguments, batch):
    model = MeshSimulator(**mesh_arguments, channels=8).fit(frame_statistics(mesh_windows))
    for _ in range(2):
        y = model(batch)
        laws.same(y[..., :2], batch.x)
        laws.close(y[..., 2], model.output_scaler.mean.expand(41, 6), 1e-6)
        nn.init.normal_(model.decoder.last.weight)
        assert not torch.equal(model(batch), y)
        model.reset_parameters()
    assert (model.state_scaler.mean != 0).all()


def test_which_operators_stream_at_constant_cost(mesh_windows, mesh_arguments, batch):
    sizes = {}
    for temporal in ("mamba", "performer", "attention", "factorized", None):
        model = build(mesh_windows, mesh_arguments, temporal=temporal)
        state, counts = None, []
        for frame in (*batch.x.unbind(1), *batch.x.unbind(1)):
            _, state = model.step(frame, batch, state)
            counts.append(sum(leaf.numel() for leaf in tree_leaves(state) if leaf is not None))
        sizes[temporal] = counts[-1] == counts[0]
        assert model.streams == sizes[temporal]
    assert sizes == {
        "mamba": True, "performer": True, "attention": False, "factorized": False, None: True
    }  # fmt: skip
    mixed = build(mesh_windows, mesh_arguments, temporal=["mamba", "attention"])
    assert not mixed.streams


def test_nodes_see_how_they_changed(mesh_windows, mesh_arguments, batch):
    model = build(mesh_windows, mesh_arguments, spatial=None, temporal=None)
    seen = []
    model.node_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(batch)
    change = seen[0][..., -2:]
    assert (change[:, 0] == 0).all()
    expected = (batch.x[:, 1:] - batch.x[:, :-1]) / model.change_scaler.std
    laws.close(change[:, 1:], expected, 1e-6)
    blind = build(mesh_windows, mesh_arguments, spatial=None, temporal=None, last_change=False)
    assert blind.node_encoder.first.in_features == model.node_encoder.first.in_features - 2


def test_waves_follow_the_frames_of_each_trajectory(mesh_windows, mesh_arguments, batch):
    model = build(mesh_windows, mesh_arguments, spectral_time=2)
    seen = []
    model.node_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch.start = torch.tensor([3, 40])
    model(batch)
    for node, start in ((0, 3), (23, 3), (24, 40), (40, 40)):
        for h in (0, 5):
            angles = [2 * math.pi * f * (start + h) for f in (0.05, 0.21)]
            waves = [wave(angle) for angle in angles for wave in (math.sin, math.cos)]
            laws.close(seen[0][node, h, -4:], torch.tensor(waves), 1e-5)
    _, state = model.prefill(batch.x[:, :4], batch)
    assert state.frame.tolist() == [7, 44]
    model.step(batch.x[:, 4], batch, state)
    laws.same(seen[-1][..., -4:], seen[0][:, 4:5, -4:])
    del batch.start
    model(batch)
    laws.same(seen[-1][0, :, -4:], seen[-1][40, :, -4:])
    laws.close(seen[-1][0, 0, -4:], torch.tensor([0.0, 1.0, 0.0, 1.0]), 1e-6)
    with pytest.raises(ValueError, match="knows no frequencies"):
        MeshSimulator(**mesh_arguments, spectral_time=True)(batch)


def test_operators_may_be_given(mesh_windows, mesh_arguments, batch):
    on_mesh, over_time = SpatialInteraction(8, 8), TemporalMamba(8, d_state=2)
    model = build(mesh_windows, mesh_arguments, spatial=on_mesh, temporal=over_time, num_layers=1)
    assert model.blocks[0].spatial is on_mesh
    assert model.blocks[0].temporal is over_time
    assert model(batch).isfinite().all()
    without = build(mesh_windows, mesh_arguments, spatial=SpatialGAT(8, 8), num_layers=1)
    assert without(batch).isfinite().all()
    assert build(mesh_windows, mesh_arguments, spatial=["dot", None]).edge_encoder is None


def test_edge_features_matter(mesh_windows, mesh_arguments):
    data = mesh_windows[0]
    other = data.clone()
    other.edge_attr = -data.edge_attr
    for spatial, matter in (("interaction", True), ("gat", True), ("gatv2", True), ("dot", False)):
        model = build(mesh_windows, mesh_arguments, spatial=spatial)
        assert torch.equal(model(data), model(other)) != matter


def test_experts_are_balanced(mesh_windows, mesh_arguments, batch):
    model = build(mesh_windows, mesh_arguments, feed_forward="moe").train()
    assert model.loss(batch).isfinite()
    assert model.get_aux_loss() > 0
    assert build(mesh_windows, mesh_arguments).get_aux_loss() == 0


def test_random_features_are_drawn_anew_in_training(mesh_windows, mesh_arguments, batch):
    model = build(mesh_windows, mesh_arguments, temporal="performer")
    attention = model.blocks[0].temporal.attention
    attention.redraw_interval = 2
    before = {name: value.clone() for name, value in attention.named_buffers()}
    model.loss(batch)
    model.eval().loss(batch)
    model.train()
    for _ in range(3):
        model.loss(batch)
    assert any(not torch.equal(v, before[n]) for n, v in attention.named_buffers())


@pytest.mark.parametrize("temporal", ["mamba", "performer", "attention"])
def test_bfloat16_autocast(temporal, mesh_windows, mesh_arguments, batch):
    model = build(mesh_windows, mesh_arguments, temporal=temporal)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, loss = model(batch), model.loss(batch)
    loss.backward()
    assert y.dtype == torch.float32
    assert loss.isfinite()
    laws.close(loss, model.loss(batch), 5e-2)


def test_learns_a_wave(mesh_windows, mesh_arguments):
    torch.manual_seed(0)
    arguments = mesh_arguments | {"num_layers": 1, "channels": 16}
    model = MeshSimulator(**arguments).fit(frame_statistics(mesh_windows))
    batch = Batch.from_data_list([mesh_windows[i] for i in (0, 2, 4, 6, 8, 10)])
    test = Batch.from_data_list([mesh_windows[i] for i in (7, 13)])
    before = model.eval().loss(test, skip=1)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()
    assert model.eval().loss(test, skip=1) < 0.05 * before


def test_errors(mesh_arguments, mesh_windows, batch):
    with pytest.raises(ValueError, match="'frequency' is not causal"):
        MeshSimulator(**mesh_arguments, temporal="frequency")
    with pytest.raises(ValueError, match="unknown spatial operator 'mesh'"):
        MeshSimulator(**mesh_arguments, spatial="mesh")
    with pytest.raises(ValueError, match="unknown temporal operator 'rnn'"):
        MeshSimulator(**mesh_arguments, temporal="rnn")


def test_repr(mesh_arguments):
    assert str(MeshSimulator(**mesh_arguments)) == (
        "MeshSimulator(velocity -> velocity, pressure, channels=64, num_layers=4)"
    )
