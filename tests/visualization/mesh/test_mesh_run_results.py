import pytest

from pyg_stmamba.visualization.mesh.mesh_run_results import read_mesh_run_results


def test_everything_is_read(make_mesh_run):
    run = read_mesh_run_results(make_mesh_run())
    assert run.left_out == []
    assert run.model == "mesh-simulator"
    assert run.methods == {
        "model": "mesh-simulator",
        "mesh_graph_net": "mesh graph net",
        "persistence": "persistence",
    }
    assert run.errors["model_velocity_rmse"].shape == (2, 24)
    prediction, truth = run.rollouts["test_0"]
    assert (prediction.num_frames, truth.num_frames) == (24, 26)
    assert run.unit("velocity") == "m/s"
    assert run.versions == {"torch": "2.13.0"}
    assert "cylinder-flow" in run.configuration
    assert len(run.history["epoch"]) == 12


def test_what_is_missing_or_broken_is_noted(make_mesh_run):
    folder = make_mesh_run()
    (folder / "rollout_errors.npz").write_bytes(b"PK\x03\x04 no archive")
    (folder / "rollouts" / "test_0_truth.npz").unlink()
    (folder / "versions.json").write_text("{")
    (folder / "metrics.csv").unlink()
    run = read_mesh_run_results(folder)
    assert run.errors == run.rollouts == run.versions == run.history == run.methods == {}
    noted = "; ".join(run.left_out)
    for piece in (
        "rollout_errors.npz cannot be read",
        "test_0_prediction.npz cannot be read",
        "versions.json cannot be read",
        "metrics.csv is not in the folder",
        "rollouts/ holds no prediction",
    ):
        assert piece in noted, piece
    assert "forecasts" not in noted
    assert run.unit("velocity") == ""


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="which is no folder"):
        read_mesh_run_results(tmp_path / "nowhere")
