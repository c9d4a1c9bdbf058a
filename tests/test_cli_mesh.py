import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from pyg_stmamba.cli import main
from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.deepmind_writer import write_deepmind
from pyg_stmamba.data.mesh_files.npz_trajectory import save_trajectory_npz
from pyg_stmamba.data.mesh_files.pvd_series import write_pvd
from pyg_stmamba.data.mesh_files.read_trajectory import read_trajectory
from pyg_stmamba.training.mesh import fit_simulator

QUICK = ["--max-epochs", "1", "--windows-per-epoch", "4", "--progress", "false"]
QUICK += ["--model.channels", "8", "--model.num-layers", "1", "--accelerator", "cpu"]


def channel(frames=24):
    """A channel in which waves travel, as its owner has it: U and p in series of their own."""
    pos = np.stack(np.meshgrid(np.arange(6.0), np.arange(4.0), indexing="ij"), -1).reshape(-1, 2)
    corner = (np.arange(5)[:, None] * 4 + np.arange(3)).ravel()
    triangles = np.concatenate(
        [
            np.stack([corner, corner + 4, corner + 5], axis=1),
            np.stack([corner, corner + 5, corner + 1], axis=1),
        ]
    )
    x, y = pos.T
    node_type = np.where((y == 0) | (y == 3), 6, 0)
    node_type[(x == 5) & (node_type == 0)] = 5
    node_type[(x == 0) & (node_type == 0)] = 4
    phase = 0.3 * np.arange(frames)[:, None] - x
    speed = y * (3 - y) * (1 + 0.3 * np.sin(phase))
    velocity = np.stack([speed, 0 * speed], axis=-1)
    fields = {"U": velocity, "p": (6 - x + 0 * speed)[..., None]}
    return MeshTrajectory(Mesh(pos, {"triangle": triangles}, node_type), fields, np.arange(frames))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for name in ("U", "p"):
        write_pvd(folder / f"{name}.pvd", channel(), fields=[name])
    return folder


@pytest.fixture(scope="module")
def run(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "mine"
    fields = "{velocity: U, pressure: p}"
    main(
        ["train", "--dataset", str(results), "--fields", fields, "--time-step", "0.1"]
        + ["--history", "3", "--split", "[0.5,0.2,0.3]", "--out", str(out), *QUICK]
    )
    return out


def test_a_folder_of_results_is_trained_on(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["fields"] == {"velocity": "U", "pressure": "p"}
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["model"] == "MeshSimulator"
    assert set(metrics["baselines"]) == {"persistence"}
    assert (run / "report.html").stat().st_size > 10_000


def test_a_rollout_is_written_beside_the_truth(run, results, tmp_path, capsys):
    out, animation = tmp_path / "rollout.pvd", tmp_path / "rollout.gif"
    main(["rollout", str(run), "--out", str(out), "--animation", str(animation)])
    assert "frames: " in capsys.readouterr().out
    written = read_trajectory(out)
    assert set(written.fields) == {
        f"{field}{part}" for field in ("velocity", "pressure") for part in ("", "_truth", "_error")
    }
    whole = read_trajectory(results, fields={"velocity": "U", "pressure": "p"}, time_step=0.1)
    # The test part is the last 30 % of 24 frames, the first three of them are read.
    np.testing.assert_allclose(written.times, whole.times[20:], rtol=1e-6)
    np.testing.assert_allclose(written.frames("velocity_truth"), whole.frames("velocity", 20, 24))
    difference = written.frames("velocity") - written.frames("velocity_truth")
    np.testing.assert_allclose(written.frames("velocity_error"), difference, atol=1e-6)
    border = ~whole.mesh.nodes_of("normal", "outflow")
    held = np.broadcast_to(whole.frames("velocity", 19, 20)[border], (border.sum(), 4, 2))
    np.testing.assert_allclose(written.frames("velocity")[border], held)
    assert animation.stat().st_size > 1000


def test_a_rollout_may_go_on_after_the_data(run, tmp_path, capsys):
    out = tmp_path / "long.xdmf"
    main(["rollout", str(run), "--split", "all", "--steps", "50", "--out", str(out)])
    written = read_trajectory(out)
    assert written.num_frames == 50
    assert set(written.fields) == {"velocity", "pressure"}
    # Three of 24 frames are read, so that 21 have a truth.
    one_more = ["--steps", "22", "--animation", str(tmp_path / "rollout.gif")]
    with pytest.raises(SystemExit):
        main(["rollout", str(run), "--split", "all", "--out", str(out), *one_more])
    assert "an animation shows the truth too" in capsys.readouterr().err
    assert set(read_trajectory(out).fields) == {"velocity", "pressure"}


def test_boundary_values_come_from_a_file(run, tmp_path):
    values = np.full((4, 24, 2), 7.0)
    np.save(tmp_path / "inlet.npy", values)
    out = tmp_path / "rollout.npz"
    main(["rollout", str(run), "--boundary", str(tmp_path / "inlet.npy"), "--out", str(out)])
    written = read_trajectory(out)
    border = ~written.mesh.nodes_of("normal", "outflow")
    assert (written.frames("velocity")[border] == 7).all()


def test_evaluation_puts_runs_side_by_side(run, tmp_path, capsys):
    out = tmp_path / "errors.json"
    main(["evaluate", str(run), "--rivals", str(run), "--horizons", "[1,2]", "--out", str(out)])
    scores = json.loads(out.read_text())
    assert list(scores["test"]["velocity_rmse"]) == ["1", "2"]
    assert scores["baselines"]["mine"] == scores["test"]
    assert len(scores["rollouts"]) == 1
    assert "persistence" in capsys.readouterr().out


def test_another_part_and_boundary_are_evaluated_from_a_checkpoint(run, tmp_path):
    np.save(tmp_path / "inlet.npy", np.full((4, 24, 2), 7.0))
    scores = []
    for boundary in ("held", str(tmp_path / "inlet.npy")):
        out = tmp_path / "errors.json"
        main(
            ["evaluate", str(run / "checkpoints" / "best.ckpt"), "--split", "val"]
            + ["--nodes", "[inflow]", "--boundary", boundary, "--out", str(out)]
        )
        errors = json.loads(out.read_text())
        # The validation part has five frames, the first three of them are read.
        assert errors["rollouts"][0]["frames"] == 2
        scores.append(errors["val"]["velocity_rmse"]["1"])
    # Held, the inlet is only a frame behind.
    assert scores[0] < 1 < 4 < scores[1]


def test_why_a_rollout_ended_is_said(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["rollout", str(run), "--limit", "0", "--out", str(tmp_path / "rollout.npz")])
    said = capsys.readouterr()
    assert said.out.startswith("the rollout diverged at step 1")
    assert "nothing to write: the rollout diverged at step 1" in said.err


def test_what_training_is_given(results, tmp_path, monkeypatch, capsys):
    given = {}

    @functools.wraps(fit_simulator)  # the command line reads its options from the signature
    def interrupted(model, split, protocol, **options):
        given.update(options, model=model, protocol=protocol)
        raise KeyboardInterrupt

    monkeypatch.setattr("pyg_stmamba.training.mesh.fit_simulator", interrupted)
    fields = "{velocity: U, pressure: p}"
    arguments = ["train", "--dataset", str(results), "--fields", fields, "--out", str(tmp_path)]
    weights = []
    for seed in ("4", "4", "5"):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *QUICK, "--seed", seed, "--noise", "0.25"])
        assert ended.value.code == 130
        weights.append(given["model"].decoder.first.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert (given["protocol"].history, given["protocol"].gradients) == (8, True)
    assert (given["seed"], given["noise"], given["resume"]) == (5, 0.25, False)
    assert f"Go on with: pyg-stmamba train --resume {tmp_path}" in capsys.readouterr().err
    network = ["--model", "mesh-graph-net", "--accelerator", "cpu"]
    with pytest.raises(SystemExit):
        main([*arguments, *network])
    assert (given["protocol"].history, given["protocol"].gradients) == (1, False)


def test_a_run_goes_on(run):
    before = json.loads((run / "metrics.json").read_text())["epochs"]
    main(["train", "--resume", str(run), "--max-epochs", str(before + 1)])
    assert json.loads((run / "metrics.json").read_text())["epochs"] == before + 1


def test_the_files_of_mesh_graph_nets(tmp_path, capsys):
    flow = channel()
    fields = {"velocity": flow.field("U"), "pressure": flow.field("p")}
    flow = MeshTrajectory(flow.mesh, fields, flow.times)
    for split in ("train", "valid", "test"):
        write_deepmind(tmp_path, split, [flow])
    out = tmp_path / "run"
    data = ["--dataset", "deep-mind-cylinder-flow", "--root", str(tmp_path)]
    main(["train", *data, "--data.check", "false", "--history", "3", "--out", str(out), *QUICK])
    main(["train", "--resume", str(out), "--max-epochs", "2"])
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 2
    main(["evaluate", str(out), "--persistence", "false"])
    main(["evaluate", str(out), *data, "--persistence", "false"])
    main(["rollout", str(out), "--steps", "2", "--out", str(tmp_path / "rollout.npz")])
    assert capsys.readouterr().out.count("Errors of rollouts over 1 simulations (test)") == 2


def test_a_run_goes_on_in_its_own_folder(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--resume", str(run), "--out", str(tmp_path / "other")])
    assert "goes on in its own folder" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_any_format_is_converted(results, tmp_path, capsys):
    out = tmp_path / "flow.npz"
    pair = f"{results / 'U.pvd'},{results / 'p.pvd'}"
    main(["convert", "--dataset", pair, "--out", str(out)])
    text = capsys.readouterr().out
    assert "24 nodes, 24 frames, U[2], p[1]" in text
    assert "node types: 8 normal, 2 inflow, 2 outflow, 12 wall" in text
    np.testing.assert_allclose(read_trajectory(out).frames("U"), channel().frames("U"), rtol=1e-6)


def test_several_files_are_several_simulations(tmp_path):
    flow = channel()
    names = ["velocity", "pressure"]
    for number in range(4):
        fields = dict(zip(names, ((1 + number) * values for values in flow.fields.values())))
        part = MeshTrajectory(flow.mesh, fields, 0.1 * flow.times, name=str(number))
        save_trajectory_npz(part, tmp_path / f"{number}.npz")
    files = [str(path) for path in sorted(tmp_path.glob("*.npz"))]
    out = tmp_path / "run"
    main(
        ["train", "--dataset", *files, "--model.name", "mesh-graph-net", "--model.channels", "8"]
        + ["--model.num-steps", "1", "--out", str(out), *QUICK[:6]]
    )
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["model"] == "MeshGraphNet"
    assert metrics["simulations"] == {"train": 2, "val": 1, "test": 1}
    # A network without memory reads one frame, unless it is told otherwise.
    assert yaml.safe_load((out / "config.yaml").read_text())["history"] is None
    assert metrics["rollouts"][0]["frames"] == 23
    third = ["--split", "all", "--simulation", "2", "--steps", "2"]
    main(["rollout", str(out), *third, "--out", str(tmp_path / "third.npz")])
    truth = read_trajectory(tmp_path / "third.npz").frames("velocity_truth")
    np.testing.assert_allclose(truth, 3 * flow.frames("U", 1, 3), rtol=1e-6)


def test_flows_past_cylinders_are_simulated(tmp_path, capsys):
    main(
        ["simulate", "cylinder-flow", "--root", str(tmp_path), "--split", "val", "--num-frames"]
        + [
            "2",
            "--num-simulations",
            "1",
            "--num-nodes",
            "550",
            "--start",
            "rest",
            "--progress",
            "false",
        ]
    )
    assert "1 simulations (val), the first MeshTrajectory(" in capsys.readouterr().out
    assert len(list(tmp_path.rglob("val_*.npz"))) == 1


def test_all_parts_are_simulated_where_they_are_looked_for(tmp_path, monkeypatch, capsys):
    from pyg_stmamba.datasets.cylinder_flow import CylinderFlow

    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets" / "cylinder_flow").mkdir(parents=True)
    monkeypatch.setattr(CylinderFlow, "_simulate_missing", lambda *arguments: None)
    monkeypatch.setattr(CylinderFlow, "__getitem__", lambda self, number: "flow")
    main(["simulate", "cylinder-flow", "--seed", "3"])
    lines = capsys.readouterr().out.splitlines()
    folder = f"datasets/cylinder_flow/processed/{CylinderFlow('', seed=3).folder.name}"
    assert lines == [
        f"{count} simulations ({split}), the first flow: {folder}"
        for split, count in (("train", 20), ("val", 4), ("test", 6))
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--dataset", "no.pvd"], "no file or folder no.pvd"),
        (["convert", "--out", "a.npz"], "give --dataset: one of cylinder-flow"),
        (["convert", "--dataset", "RESULTS", "RESULTS", "--out", "a.npz"], "one simulation at a"),
        (["train", "--dataset", "RESULTS", *QUICK], "no field 'velocity'; its fields are U, p"),
        (["train", "--dataset", "RESULTS", "--state", "[v]"], "no field 'v'; its fields are U, p"),
        (["rollout", "RUN", "--simulation", "7"], "there are the simulations 0 to 0"),
        (["rollout", "RUN", "--split", "best"], "unknown split 'best'; choose from train, val"),
        (["rollout", "RUN", "--boundary", "data", "--steps", "9"], "values for 4 steps, fewer"),
        (["rollout", "RUN", "--out", "a.csv"], "its ending must be one of .pvd, .xdmf"),
        (["rollout", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input_ends_in_one_line(arguments, message, run, results, tmp_path, capsys):
    paths = {"RUN": str(run), "RESULTS": str(results)}
    arguments = [paths.get(item, item) for item in arguments]
    if "train" in arguments:
        arguments += ["--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert message in lines[0]


def test_help_lists_the_options():
    text = subprocess.run(
        [sys.executable, "-m", "pyg_stmamba.cli", "train", "--dataset", "cylinder-flow", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for option in ("--data.num-nodes", "--model.spatial", "--noise", "--coarse-levels"):
        assert option in text
