import dataclasses

import numpy as np
import pytest
import torch

from pyg_stmamba.data.mesh import MeshTrajectory
from pyg_stmamba.models.mesh_graph_net import MeshGraphNet
from pyg_stmamba.models.mesh_simulator import MeshSimulator
from pyg_stmamba.nn import TemporalMamba
from pyg_stmamba.training.mesh.simulator import (
    check_simulator_fits,
    describe_simulator,
    load_simulator,
)


def save(simulator, path):
    weights = {f"model.{name}": value for name, value in simulator.model.state_dict().items()}
    torch.save({"simulator": describe_simulator(simulator), "state_dict": weights}, path)


@pytest.mark.parametrize("kind", [MeshSimulator, MeshGraphNet])
def test_a_surrogate_comes_back_from_its_checkpoint(
    make_simulator, flows, protocol, kind, tmp_path
):
    simulator = make_simulator(kind)
    save(simulator, tmp_path / "best.ckpt")
    again = load_simulator(tmp_path / "best.ckpt")
    assert type(again.model) is kind
    assert (again.protocol, again.facts) == (simulator.protocol, simulator.facts)
    window = protocol.windows(flows)[7]
    assert not again.model.training
    assert torch.equal(again.model(window), simulator.model(window))


def test_a_model_built_from_modules_is_passed(make_simulator, tmp_path):
    simulator = make_simulator(temporal=TemporalMamba(8, 4))
    save(simulator, tmp_path / "best.ckpt")
    with pytest.raises(ValueError, match=r"holds a MeshSimulator \(built from modules\). Build it"):
        load_simulator(tmp_path / "best.ckpt")
    other = make_simulator(temporal=TemporalMamba(8, 4)).model
    again = load_simulator(tmp_path / "best.ckpt", other)
    assert again.model is other


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint to load"):
        load_simulator(tmp_path)
    torch.save({"forecaster": {}, "state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="is not a checkpoint of a simulator"):
        load_simulator(tmp_path / "other.ckpt")


def test_all_that_does_not_fit_is_named(make_simulator, flows):
    simulator, flow = make_simulator(), flows[0]
    check_simulator_fits(simulator, flow)
    # The pressure is predicted, not read.
    without = MeshTrajectory(
        flow.mesh, {"velocity": flow.fields["velocity"]}, flow.times, parameters=flow.parameters
    )
    check_simulator_fits(simulator, without)
    mesh = dataclasses.replace(flow.mesh, node_type=None, node_type_names=("normal", "rotor"))
    other = MeshTrajectory(mesh, {"u": flow.fields["pressure"]}, 2 * flow.times)
    with pytest.raises(ValueError, match="does not fit the data") as error:
        check_simulator_fits(simulator, other)
    for part in (
        "field velocity: trained on 2 channels, given none (there are u)",
        "node types: trained on normal, obstacle, airfoil",
        "given normal, rotor",
        "time step: trained on 0.1, given 0.2",
        "parameter viscosity: not given (there are none)",
    ):
        assert part in str(error.value)
    assert "pressure" not in str(error.value)
    wide = {"velocity": flow.fields["velocity"], "pressure": flow.fields["velocity"]}
    pos = np.c_[flow.mesh.pos, flow.mesh.pos[:, 0]]
    bent = MeshTrajectory(
        dataclasses.replace(flow.mesh, pos=pos),
        wide,
        1.01 * flow.times,
        parameters=flow.parameters,
    )
    with pytest.raises(ValueError) as error:
        check_simulator_fits(simulator, bent)
    assert str(error.value).endswith(
        "data: field pressure: trained on 1 channels, given 2; space: trained in 2-D, given 3-D; "
        "time step: trained on 0.1, given 0.101"
    )
