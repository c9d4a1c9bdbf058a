import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Batch

from pyg_stmamba.data.mesh import MeshCalculus, MeshWindows
from pyg_stmamba.data.mesh.frame_statistics import frame_statistics
from pyg_stmamba.models.mesh_model import MeshModel
from tests.laws import close, same


class LinearOnMesh(MeshModel):
    """The smallest model: what it forecasts is linear in the features of a node."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self._arguments = arguments
        self.linear = nn.Linear(self.node_channels, self.state_channels + self.output_channels)
        self.seen = self.frames = None

    def _forecast(self, nodes, edges, x, data, state):
        self.seen = nodes, edges
        count = 0 if state is None else state
        self.frames = count + x.size(1)
        return self.linear(nodes), self.frames


@pytest.fixture
def model(mesh_windows, mesh_arguments):
    return LinearOnMesh(**mesh_arguments).fit(frame_statistics(mesh_windows))


@pytest.fixture
def batch(mesh_windows):
    return Batch.from_data_list([mesh_windows[1], mesh_windows[9]])


def test_scalers_are_those_of_the_training_frames(model, mesh_windows):
    states, changes, outputs, edges = [], [], [], []
    for number, trajectory in enumerate(mesh_windows.trajectories):
        velocity = np.asarray(trajectory.fields["velocity"], dtype=np.float32)
        predicted = mesh_windows.graph(number).predicted.numpy()
        states.append(velocity[:-1].reshape(-1, 2))
        changes.append(np.diff(velocity, axis=0)[:, predicted].reshape(-1, 2))
        outputs.append(trajectory.fields["pressure"][1:].reshape(-1, 1))
        edges.append(mesh_windows.graph(number).edge_attr)
    for scaler, values in (
        (model.state_scaler, states),
        (model.output_scaler, outputs),
        (model.edge_scaler, edges),
    ):
        values = np.concatenate(values)
        np.testing.assert_allclose(scaler.mean, values.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(scaler.std, values.std(0), rtol=1e-4)
    rms = np.sqrt(np.square(np.concatenate(changes), dtype=np.float64).mean(0))
    np.testing.assert_allclose(model.change_scaler.std, rms, rtol=1e-4)
    assert (model.change_scaler.mean == 0).all()
    np.testing.assert_allclose(model.condition_scaler.mean, [1.0])
    np.testing.assert_allclose(model.condition_scaler.std, [0.5])


def test_nodes_show_state_type_conditions_and_static_fields(model, batch):
    assert model.node_channels == 2 + 7 + 1 + 1
    model(batch)
    nodes, edges = model.seen
    assert nodes.shape == (24 + 17, 6, 11)
    close(nodes[..., :2], (batch.x - model.state_scaler.mean) / model.state_scaler.std, 1e-6)
    assert torch.equal(nodes[..., 2:9].argmax(-1), batch.node_type[:, None].expand(-1, 6))
    assert (nodes[..., 2:9].sum(-1) == 1).all()
    close(nodes[:24, :, 9], torch.full((24, 6), -1.0), 1e-6)
    close(nodes[24:, :, 9], torch.full((17, 6), 1.0), 1e-6)
    position = (batch.static - model.static_scaler.mean) / model.static_scaler.std
    close(nodes[..., 10:], position[:, None].expand(-1, 6, -1), 1e-6)
    close(edges, (batch.edge_attr - model.edge_scaler.mean) / model.edge_scaler.std, 1e-6)


def test_nodes_show_derivatives(mesh_windows, mesh_arguments):
    windows = MeshWindows(
        mesh_windows.trajectories, history=6, conditions=("viscosity",), gradients=True
    )
    model = LinearOnMesh(**mesh_arguments | {"gradient_dim": 2}).fit(frame_statistics(windows))
    assert model.node_channels == 2 + 6 + 7 + 1 + 1
    model(Batch.from_data_list([windows[1], windows[9]]))
    nodes, _ = model.seen
    for rows, number, trajectory in (
        (slice(24), 1, windows.trajectories[0]),
        (slice(24, None), 9, windows.trajectories[1]),
    ):
        x = windows[number].x.double().numpy()
        gradient = MeshCalculus(trajectory.mesh).node_gradient(x)
        advection = np.einsum("ntsd,ntd->nts", gradient, x)
        wanted = np.concatenate([gradient.reshape(*x.shape[:2], 4), advection], -1)
        wanted = model.derivative_scaler(torch.from_numpy(wanted))
        assert 0.1 < wanted.std() < 3
        np.testing.assert_allclose(nodes[rows, :, 2:8], wanted, atol=2e-3)
    with pytest.raises(ValueError, match=r"gradient_weight \[M, 2\].*gradients=True.*None"):
        model(mesh_windows[0])
    flat = windows[1].clone()
    flat.gradient_weight = flat.gradient_weight[:, :1]
    with pytest.raises(ValueError, match=r"gradient_weight \[M, 2\].*got \[\d+, 1\]"):
        model(flat)


def test_the_velocity_carries_whatever_comes_first(mesh_windows, mesh_arguments):
    windows = MeshWindows(
        mesh_windows.trajectories, ("pressure", "velocity"), (), history=2, gradients=True
    )
    of_state = {"state": {"pressure": 1, "velocity": 2}, "outputs": {}, "conditions": []}
    model = LinearOnMesh(**mesh_arguments | of_state | {"gradient_dim": 2})
    window = windows[0]
    model(window)
    gradient = MeshCalculus(mesh_windows.trajectories[0].mesh).node_gradient(window.x.numpy())
    advection = np.einsum("ntsd,ntd->nts", gradient, window.x[..., 1:])
    np.testing.assert_allclose(model.seen[0][..., 9:12], advection, rtol=1e-3, atol=0.1)


def test_forecasts_are_in_original_units(model, batch):
    y, z = model(batch), model.linear(model.seen[0])
    change = z[..., :2] * model.change_scaler.std
    predicted = batch.predicted
    close(y[predicted][..., :2], (batch.x + change)[predicted], 1e-6)
    same(y[~predicted][..., :2], batch.x[~predicted])
    assert 0 < predicted.sum() < len(predicted)
    close(y[..., 2:], z[..., 2:] * model.output_scaler.std + model.output_scaler.mean, 1e-5)


def test_loss_is_the_mean_square_in_scaled_units(model, batch):
    z = model.linear(model.seen[0]) if model(batch) is not None else None
    of_state = (z[..., :2] - (batch.y[..., :2] - batch.x) / model.change_scaler.std).square()
    of_output = (z[..., 2:] - model.output_scaler(batch.y[..., 2:])).square()
    for skip in (0, 2):
        parts = [
            *of_state[batch.predicted][:, skip:].flatten(0, 1).mean(0),
            of_output[:, skip:].mean(),
        ]
        close(model.loss(batch, skip), torch.stack(parts).mean(), 1e-5)
        weighted = (parts[0] + parts[1] + 3 * parts[2]) / 5
        close(model.loss(batch, skip, {"pressure": 3.0}), weighted, 1e-5)
    nothing = model.loss(batch, weights={"velocity": 0.0})
    close(nothing, of_output.mean(), 1e-5)


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("unroll", [1, 3])
def test_unrolled_loss_is_that_of_the_models_own_steps(model, batch, skip, unroll):
    given = 6 - unroll
    y, state = model.prefill(batch.x[:, :given], batch)
    errors = [(y[:, skip:] - batch.y[:, skip:given])]
    for frame in range(given, 6):
        own = torch.where(batch.predicted[:, None], y[:, -1, :2], batch.x[:, frame])
        y, state = model.step(own, batch, state)
        y = y.unsqueeze(1)
        errors.append(y - batch.y[:, frame : frame + 1])
    assert state == 6
    wanted = 0
    for steps, error in enumerate(errors, start=1):
        of_state = (error[..., :2] / model.change_scaler.std)[batch.predicted].square()
        of_output = (error[..., 2:] / model.output_scaler.std).square()
        both = torch.cat([of_state.mean((0, 1)), of_output.mean((0, 1))])
        wanted = wanted + both.mean() / steps
    wanted = wanted / sum(1 / steps for steps in range(1, unroll + 2))
    found = model.loss(batch, skip, unroll=unroll)
    assert model.frames == 6
    close(found, wanted, 1e-4)
    gradients = [torch.autograd.grad(loss, model.linear.weight)[0] for loss in (found, wanted)]
    close(*gradients, 1e-3)
    assert abs(found - model.loss(batch, skip)) > 1e-3 * found


def test_loss_of_the_truth_is_zero(model, batch):
    class Knows(MeshModel):
        def _forecast(self, nodes, edges, x, data, state):
            change = self.change_scaler(data.y[..., :2] - x)
            return torch.cat([change, self.output_scaler(data.y[..., 2:])], -1), None

    knows = Knows(**model.config())
    knows.load_state_dict({k: v for k, v in model.state_dict().items() if "linear" not in k})
    assert knows.loss(batch) == 0
    y = knows(batch)
    close(y[batch.predicted], batch.y[batch.predicted], 1e-5)


def test_loss_ignores_the_state_where_it_is_given(model, batch):
    before = model.loss(batch)
    batch.y = batch.y.clone()
    batch.y[~batch.predicted, :, :2] += 5.0
    same(model.loss(batch), before)
    batch.y[~batch.predicted, :, 2:] += 5.0
    assert model.loss(batch) != before


def test_step_is_a_prefill_of_one_frame(model, batch):
    whole, frames = model.prefill(batch.x, batch)
    assert frames == 6
    state = None
    for t in range(6):
        y, state = model.step(batch.x[:, t], batch, state)
        close(y, whole[:, t], 1e-6)
    assert state == 6
    same(model(batch), whole)


def test_without_outputs_conditions_and_static_fields(mesh_windows, batch):
    model = LinearOnMesh(state={"velocity": 2}, outputs={}, node_types=["a"] * 7, edge_channels=3)
    assert model.output_scaler is model.condition_scaler is model.static_scaler is None
    assert (model.output_channels, model.node_channels) == (0, 9)
    batch.y = batch.y[..., :2]
    del batch.static
    assert model(batch).shape == (41, 6, 2)
    assert model.loss(batch).isfinite()


def test_protocol_gives_the_arguments(mesh_arguments, mesh_windows):
    from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol

    protocol = MeshProtocol(conditions=("viscosity",), static=("distance",))
    assert protocol.model_arguments(mesh_windows.trajectories[0]) == mesh_arguments


def test_errors(model, batch, mesh_arguments):
    with pytest.raises(ValueError, match="at least one field"):
        LinearOnMesh(**mesh_arguments | {"state": {}})
    with pytest.raises(ValueError, match=r"frames \[N, H, 2\] of velocity.*\[41, 6, 3\]"):
        model.prefill(batch.y, batch)
    with pytest.raises(ValueError, match=r"skip=6 and unroll=0 must leave a frame of the 6"):
        model.loss(batch, skip=6)
    with pytest.raises(ValueError, match=r"skip=0 and unroll=-1 must leave a frame of the 6"):
        model.loss(batch, unroll=-1)
    with pytest.raises(ValueError, match=r"no field 'density'.*velocity, pressure"):
        model.loss(batch, weights={"density": 1.0})
    for name, given in (("edge_attr", r"\[\d+, 2\]"), ("conditions", r"\[2, 0\]")):
        other = batch.clone()
        other[name] = other[name][:, :-1]
        with pytest.raises(ValueError, match=rf"\d {name}.*got {given}"):
            model(other)
    other = batch.clone()
    del other.static
    with pytest.raises(ValueError, match=r"1 static.*got None"):
        model(other)
    batch.node_type = batch.node_type + 3
    with pytest.raises(ValueError, match=r"node type 9 is unknown.*0 to 6 \(normal, .*wall\)"):
        model(batch)
