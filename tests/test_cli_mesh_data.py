import numpy as np
import pytest
import yaml

from pyg_stmamba.cli_mesh_data import (
    add_mesh_options,
    is_mesh_data,
    is_mesh_run,
    load_simulations,
    named_dataset,
    read_simulations,
)
from pyg_stmamba.cli_options import make_parser
from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.hdf5_trajectory import save_trajectory_hdf5
from pyg_stmamba.data.mesh_files.npz_trajectory import save_trajectory_npz
from pyg_stmamba.data.mesh_files.pvd_series import write_pvd
from pyg_stmamba.datasets import MESH_DATASETS


@pytest.fixture
def flow():
    pos = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    mesh = Mesh(pos, {"triangle": np.array([[0, 1, 3], [0, 3, 2]])}, np.zeros(4, dtype=int))
    rng = np.random.default_rng(0)
    sizes = {"velocity": 2, "pressure": 1, "heat": 1}
    fields = {name: rng.normal(size=(20, 4, channels)) for name, channels in sizes.items()}
    return MeshTrajectory(mesh, fields, np.arange(20))


@pytest.fixture
def parse():
    def parsed(*arguments):
        parser = make_parser("train", parsed)
        dataset = arguments[arguments.index("--dataset") + 1]
        add_mesh_options(parser, dataset)
        return parser.parse_args(list(arguments))

    return parsed


def test_what_is_mesh_data(flow, tmp_path):
    save_trajectory_npz(flow, tmp_path / "flow.npz")
    np.savez(tmp_path / "series.npz", values=np.zeros(3))
    yes = ["cylinder-flow", "deep-mind-airfoil", "a.vtu", "U.xdmf,p.xdmf", "case.foam", "out*"]
    for name in [*yes, str(tmp_path), str(tmp_path / "flow.npz")]:
        assert is_mesh_data(["--dataset", name]), name
    for name in ("metr-la", "freeway", "a.csv", "none.npz", str(tmp_path / "series.npz")):
        assert not is_mesh_data(["--dataset", name]), name
    config = tmp_path / "config.yaml"
    for name, expected in ((["cylinder-flow"], True), ("cylinder-flow", True), ("pems-bay", False)):
        config.write_text(yaml.safe_dump({"dataset": name}))
        assert is_mesh_data(["--config", str(config)]) is expected
    assert not is_mesh_data([])


def test_what_is_a_run_on_meshes(tmp_path):
    assert not is_mesh_run(str(tmp_path))
    for name, expected in (("mesh-graph-net", True), ("st-mamba", False)):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": {"name": name}}))
        assert is_mesh_run(str(tmp_path)) is expected
        assert is_mesh_run(str(tmp_path / "checkpoints" / "best.ckpt")) is expected


def test_ones_own_simulations(parse, flow, tmp_path):
    save_trajectory_npz(flow, tmp_path / "flow.npz")
    own = ["--dataset", str(tmp_path / "flow.npz")]
    split, protocol = load_simulations(parse(*own), 4, True)
    assert [part[0].num_frames for part in split] == [14, 2, 4]
    assert protocol == MeshProtocol(outputs=("pressure", "heat"), history=4, gradients=True)
    _, protocol = load_simulations(parse(*own, "--state", "[velocity,heat]"))
    assert (protocol.state, protocol.outputs) == (("velocity", "heat"), ("pressure",))
    said = ["--history", "2", "--gradients", "false", "--outputs", "[heat]", "--coarse-levels", "3"]
    split, protocol = load_simulations(parse(*own, *said, "--split", "[0.4,0.2,0.4]"), 4, True)
    assert [part[0].num_frames for part in split] == [8, 4, 8]
    assert protocol == MeshProtocol(outputs=("heat",), history=2, coarse_levels=3)


def test_options_of_reading(parse, flow, tmp_path):
    arrays = {"pos": flow.mesh.pos, "cells": flow.mesh.cells["triangle"], "U": np.zeros((3, 4, 2))}
    np.savez(tmp_path / "own.npz", node_type=flow.mesh.node_type, **arrays)
    save_trajectory_hdf5({"a": flow, "b": flow.between(2, 6)}, tmp_path / "two.h5")
    write_pvd(tmp_path / "flow.pvd", flow)
    options = ["--fields", "{velocity: U}", "--time-step", "0.5"]
    (named,) = read_simulations(parse("--dataset", str(tmp_path / "own.npz"), *options))
    assert (set(named.fields), named.time_step) == ({"velocity"}, 0.5)
    rule = ["--node-types", "{wall: 'y > 0.5'}"]
    (typed,) = read_simulations(parse("--dataset", str(tmp_path / "flow.pvd"), *rule))
    assert typed.mesh.nodes_of("wall").tolist() == [False, False, True, True]
    both = read_simulations(parse("--dataset", str(tmp_path / "two.h5")))
    assert [each.num_frames for each in both] == [20, 4]
    renamed = ["--fields", "{U: velocity}"]
    both = read_simulations(parse("--dataset", str(tmp_path / "two.h5"), *renamed))
    assert [list(each.fields) for each in both] == [["U"], ["U"]]
    with pytest.raises(ValueError, match=r"own.npz holds a whole .* node_types cannot be given"):
        read_simulations(parse("--dataset", str(tmp_path / "own.npz"), *rule))


def test_options_are_those_of_the_data_set(parse, tmp_path):
    given = parse("--dataset", "deep-mind-airfoil", "--data.check", "false")
    assert vars(given.data) == {"check": False}
    assert parse("--dataset", "cylinder-flow").data.num_nodes == 600
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"dataset": ["deep-mind-airfoil"]}))
    assert named_dataset(["--config", str(config)]) == "deep-mind-airfoil"
    assert named_dataset(["--config", str(config), "--dataset", "a.pvd"]) == "a.pvd"
    assert named_dataset([]) is None


class OfRoot(list):
    """Parts that tell where they come from."""

    protocol = MeshProtocol(conditions=("viscosity",))


def test_a_built_in_data_set(parse, monkeypatch, tmp_path):
    made = []

    def open_part(root, split, **options):
        made.append(options)
        return OfRoot([f"{split} of {root.name}"])

    given = parse("--dataset", "cylinder-flow", "--root", str(tmp_path / "here"), "--data.seed=7")
    monkeypatch.setitem(MESH_DATASETS, "cylinder-flow", open_part)
    split, protocol = load_simulations(given, 5, True)
    assert split == (["train of here"], ["val of here"], ["test of here"])
    assert protocol == MeshProtocol(conditions=("viscosity",), history=5, gradients=True)
    assert [options["seed"] for options in made] == [7, 7, 7]
    assert read_simulations(given) == ["train of here", "val of here", "test of here"]
