import numpy as np
import torch
from torch_geometric.data import Batch

from pyg_stmamba.data.mesh.frame_statistics import frame_statistics
from pyg_stmamba.models.mesh_persistence import MeshPersistence
from tests.laws import close, same


def test_the_state_stays_and_outputs_are_their_mean_or_held(mesh_windows, mesh_arguments):
    model = MeshPersistence(**mesh_arguments).fit(frame_statistics(mesh_windows))
    assert not list(model.parameters())
    batch = Batch.from_data_list([mesh_windows[0], mesh_windows[8]])
    y = model(batch)
    same(y[..., :2], batch.x)
    pressure = [t.fields["pressure"][1:].ravel() for t in mesh_windows.trajectories]
    mean = torch.tensor(np.concatenate(pressure).mean(), dtype=torch.float32)
    close(y[..., 2], mean.expand(41, 6), 1e-5)
    batch.outputs = batch.y[:, 0, 2:]
    y, _ = model.prefill(batch.x, batch)
    close(y[..., 2], batch.outputs.expand(-1, 6), 1e-5)
    step, state = model.step(batch.x[:, 3], batch)
    same(step, y[:, 3])
    assert state is None
    assert model.streams


def test_loss_is_that_of_no_change(mesh_windows, mesh_arguments):
    model = MeshPersistence(**mesh_arguments | {"outputs": {}}).fit(
        frame_statistics(mesh_windows)._replace(outputs=None)
    )
    data = mesh_windows[2]
    data.y = data.y[..., :2]
    change = (data.y - data.x)[data.predicted] / model.change_scaler.std
    close(model.loss(data), change.square().mean(), 1e-6)


def test_config_and_repr(mesh_arguments):
    model = MeshPersistence(**mesh_arguments)
    assert model.config() == mesh_arguments
    assert str(model) == "MeshPersistence(velocity, pressure)"
