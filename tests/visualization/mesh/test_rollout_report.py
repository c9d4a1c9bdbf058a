import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.npz_trajectory import save_trajectory_npz
from pyg_stmamba.visualization.mesh import rollout_report, write_rollout_report
from pyg_stmamba.visualization.mesh.mesh_run_pictures import PICTURES


def words(path: Path) -> str:
    html = re.sub(r"<style>.*?</style>", "", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


@pytest.fixture(scope="module")
def usual(usual_mesh_run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout_report, "ANIMATED_FRAMES", 12)
        write_rollout_report(usual_mesh_run)
    return usual_mesh_run


@pytest.fixture
def few_pictures(monkeypatch):
    """One picture that is quick to draw, and no animation."""
    kept = {name: PICTURES[name] for name in ("last_fields", "forces")}
    monkeypatch.setattr(rollout_report, "PICTURES", kept)

    def still(prediction, truth, path, **options):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"GIF89a")

    monkeypatch.setattr(rollout_report, "animate_rollout", still)


def test_the_report_holds_the_run(usual):
    text = words(usual / "report.html")
    metrics = json.loads((usual / "metrics.json").read_text())
    for part in (metrics["test"], metrics["baselines"]["persistence"]):
        for metric in ("velocity_rmse", "pressure_relative_l2", "lift_error", "vorticity_rmse"):
            for value in part[metric].values():
                assert f"{value:.3g}" in text, metric
    for piece in (
        "mesh-simulator: velocity RMSE over all steps",
        "below persistence",
        "mesh graph net: 1 of 2 rollouts diverged",
        "Divergence of the velocity, RMS:",
        "test 0 60 steps",
        "131,337",
        "432 s (7.2 min)",
        "0.0123 s",
        "2.13.0",
        "dataset: cylinder-flow",
    ):
        assert piece in text, piece
    assert "Left out" not in text


def test_frequency_and_lag_are_told(usual):
    found = json.loads((usual / "metrics.json").read_text())["rollouts"][0]["oscillations"]["lift"]
    told = f"lift {found['frequency']:.3g} Hz (truth {found['frequency_truth']:.3g} Hz), late by"
    assert np.isclose(found["frequency_truth"], 3, atol=0.1)
    assert told in words(usual / "report.html")


def test_the_report_stands_alone(usual):
    html = (usual / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r'(?:src|href)="(.{5})', html)) == {"data:"}
    assert html.count('src="data:image/png;base64,') == len(PICTURES)
    assert html.count('src="data:image/gif;base64,') == 1
    assert not re.search(r"<(script|link|iframe)|http|url\(|@import", html)
    names = {path.name for path in (usual / "pictures").iterdir()}
    assert names == {"animation.gif", *(f"{name}.png" for name in PICTURES)}
    with Image.open(usual / "pictures" / "animation.gif") as file:
        assert file.n_frames == 12
    assert (usual / "pictures" / "animation.gif").stat().st_size < 2_000_000


def test_each_piece_alone_gives_a_report(make_mesh_run, few_pictures):
    folder = make_mesh_run()
    (folder / "rollouts" / "test_0_prediction.npz").unlink()
    for name in ("metrics.csv", "rollout_errors.npz", "config.yaml", "versions.json"):
        (folder / name).unlink()
    stale = folder / "pictures" / "forces.png"
    stale.parent.mkdir()
    stale.write_bytes(b"of an earlier run")
    text = words(write_rollout_report(folder))
    for piece in (
        "metrics.csv is not in the folder",
        "rollout_errors.npz is not in the folder",
        "last fields: no rollout was kept",
        "forces: rollout_errors.npz has no drag",
    ):
        assert piece in text, piece
    assert not stale.exists()
    (folder / "config.yaml").write_text("seed: 1")
    (folder / "metrics.json").write_text("{")
    assert "metrics.json cannot be read" in words(write_rollout_report(folder))


def test_an_animation_that_grows_too_large_is_made_smaller_or_left_out(
    make_mesh_run, monkeypatch, few_pictures
):
    folder = make_mesh_run(50)
    sizes = []

    def made_up(prediction, truth, path, **options):
        sizes.append((options["colors"], options["every"]))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"0" * (limit + 1 if len(sizes) < enough else limit))

    monkeypatch.setattr(rollout_report, "animate_rollout", made_up)
    limit, enough = rollout_report.LARGEST_ANIMATION, 2
    text = words(write_rollout_report(folder))
    assert sizes == [(64, 2), (32, 4)]
    assert "one of 4 frames" in text
    sizes.clear()
    enough = 9
    html = write_rollout_report(folder)
    assert len(sizes) == 3
    assert "animation: it is larger than 2 MB" in words(html)
    assert "image/gif" not in html.read_text()


def test_a_space_of_three_dimensions_has_no_field_pictures(make_mesh_run, monkeypatch):
    kept = {"last_fields": PICTURES["last_fields"]}
    monkeypatch.setattr(rollout_report, "PICTURES", kept)
    folder = make_mesh_run()
    solid = Mesh(np.eye(4, 3), {"tetra": np.array([[0, 1, 2, 3]])})
    field = MeshTrajectory(solid, {"velocity": np.ones((3, 4, 3))}, np.arange(3.0))
    for side in ("prediction", "truth"):
        save_trajectory_npz(field, folder / "rollouts" / f"test_0_{side}.npz")
    text = words(write_rollout_report(folder))
    assert "animation: pictures are drawn of plane meshes" in text
    assert "last fields: pictures are drawn of plane meshes" in text


def test_text_from_the_data_is_escaped(make_mesh_run, few_pictures):
    folder = make_mesh_run()
    evil = "<script>alert(1)</script>$x_{$"
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["baselines"][evil] = metrics["baselines"]["persistence"]
    metrics["rollouts"][0]["name"] = metrics["model"] = metrics["device"] = evil
    metrics["measure"]["nodes"] = [evil]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    html = write_rollout_report(folder).read_text(encoding="utf-8")
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4


def test_writing_twice_gives_the_same_page_and_prints_nothing(make_mesh_run, capfd, few_pictures):
    folder = make_mesh_run()
    first = write_rollout_report(folder).read_bytes()
    assert write_rollout_report(str(folder)).read_bytes() == first
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]
    assert capfd.readouterr() == ("", "")
