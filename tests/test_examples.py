"""Each example runs, and what it returns is checked against a number known beforehand."""

import ast
import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in EXAMPLES if f'load("{name}")' not in source] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_one_short_file_with_a_story(name: str) -> None:
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 120
    assert len(ast.get_docstring(ast.parse(source)) or "") > 100
    assert callable(load(name).main)


def test_streaming() -> None:
    result = load("streaming").main(num_nodes=6, num_steps=40, channels=8)
    assert result["difference of steps"] < 1e-5
    assert result["difference of chunks"] < 1e-5
    assert result["difference without the state"] > 1e-2
    # 16 inner channels with 16 numbers each, and the last 3 inputs of the convolution.
    for moment in ("first", "last"):
        assert result[f"numbers in the state after the {moment} step"] == 6 * (16 * 16 + 3 * 16)


def test_drop_in_block() -> None:
    result = load("drop_in_block").main(num_batches=80)
    assert 0.8 < result["with Mamba"] <= 1
    assert result["without a temporal phase"] < 0.05


def test_own_data() -> None:
    result = load("own_data").main(epochs=4, channels=16)
    # Nobody forecasts the noise; whoever sees one gauge alone cannot do without guessing.
    assert result["noise of the gauges"] == pytest.approx(0.0399, abs=1e-4)
    assert result["noise of the gauges"] < result["mae"] < 0.75 * result["best baseline"]
    assert result["hours ahead"] == 2


def test_forecast_freeway(tmp_path: Path) -> None:
    metrics = load("forecast_freeway").main(tmp_path, num_weeks=1, epochs=2, channels=16)
    # 7 days of 288 steps hold 2016 - 23 windows of 12 + 12 steps.
    assert sum(metrics["windows"].values()) == 1993
    assert set(metrics["test"]["horizons"]) == {"3", "6", "12"}
    best = min(scores["average"]["mae"] for scores in metrics["baselines"].values())
    assert metrics["test"]["average"]["mae"] < best


def test_performer_forecasting() -> None:
    errors = load("performer_forecasting").main()
    # The noise of the sensors, which nobody forecasts, has a variance of 0.05 squared.
    assert all(error > 0.05**2 for error in errors.values())
    for way in ("one shot", "teacher forcing", "then scheduled sampling"):
        assert errors[way] < 0.2 * errors["linear model alone"]


def test_spectral_time(tmp_path: Path) -> None:
    result = load("spectral_time").main(tmp_path / "modes.png", num_rows=5000, num_probes=8)
    assert (tmp_path / "modes.png").read_bytes().startswith(b"\x89PNG")
    # Half a bin of 512 rows is 0.049 Hz; refined frequencies are wrong by a small part of it.
    assert 0.01 < result["frequency error of bins [Hz]"] < 0.049
    assert result["frequency error of parabolic [Hz]"] < 0.003
    assert result["frequency error of least squares [Hz]"] < 0.001
    # Nobody forecasts the noise; whoever keeps the beat forecasts all else.
    assert result["noise"] == 0.5
    assert result["forecast error of least squares"] < 0.54
    assert result["forecast error of bins"] > 0.8


def test_space_time_attention(tmp_path: Path) -> None:
    result = load("space_time_attention").main(tmp_path / "maps" / "toy.png")
    assert (tmp_path / "maps" / "toy.png").read_bytes().startswith(b"\x89PNG")
    # Nine times as much attention to the own color, counted over the patches that are seen.
    assert result["spot to itself, space"] == pytest.approx(9 / 12)
    assert result["spot to each spot, at once"] == pytest.approx(9 / (4 * 9 + 12))
    assert result["spot to itself, time after space"] == pytest.approx(0.4222, abs=1e-4)
    assert (result["weights apart"], result["weights at once"]) == (2 * 4 * 4**2, 16**2)
    assert result["influence of another video"] == 0
    assert result["the same without batch_first"] == pytest.approx(0.1, abs=1e-5)


def test_moving_pattern() -> None:
    result = load("moving_pattern").main(num_batches=200)
    for name in ("divided", "joint", "factorized encoder"):
        assert result[f"accuracy of {name}"] > 0.95
        assert result[f"accuracy of {name}, played backwards"] < 0.05
    # Whoever does not see the order of frames is right in one of two.
    for name in ("space only, class token", "space only, mean"):
        assert abs(result[f"accuracy of {name}"] - 0.5) < 0.05
        assert result[f"largest change of {name}"] < 1e-5


def test_incremental_decoding() -> None:
    result = load("incremental_decoding").main(steps=40, d_model=32)
    assert result["difference of both ways"] < 1e-5
    assert result["difference of scenarios"] < 1e-5
    assert result["keys kept by a layer"] == 40


def test_transformer_configurations() -> None:
    result = load("transformer_configurations").main(d_model=32, length=20)
    assert result["finite gradients"] == 1
    # Of the parameters of a layer, those of the network become eight times as many; of its
    # operations, twice as many.
    assert 3 < result["experts: times the parameters"] < 8
    assert 1 < result["experts: times the operations"] < 2
    # 1e-2 times the balance of each of two layers, which is 1 at best, and the z losses.
    assert result["experts: auxiliary loss"] > 0.02
    assert result["shared layers: part of the parameters"] == pytest.approx(1 / 6, abs=0.01)
    assert result["shared layers: caches"] == 6
    assert result["one by one: difference"] < 1e-5


def test_frequency_attention() -> None:
    errors = load("frequency_attention").main(num_batches=80)
    # The least errors are 0.2 without time and 0.04 with it.
    assert 0.2 < errors["without a temporal phase"] < 0.3
    assert 0.04 < errors["with attention among frequencies"] < 0.2
    assert 0.04 < errors["with a matrix for each frequency"] < 0.1


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples simulate flows past cylinders, once."""
    return tmp_path_factory.mktemp("cylinder_flow")


def test_cylinder_flow(flows: Path) -> None:
    metrics = load("cylinder_flow").main(flows, epochs=2, channels=8)
    assert metrics["simulations"] == {"train": 3, "val": 1, "test": 1}
    # 80 frames, of which 16 are read.
    assert metrics["rollouts"][0]["frames"] == 64
    still = metrics["baselines"]["persistence"]["one_step_rmse"]["1"]
    assert 0 < metrics["test"]["one_step_rmse"]["1"] < still


def test_mesh_graph_net(flows: Path) -> None:
    result = load("mesh_graph_net").main(flows, minutes=0.05)
    assert list(result["scores"]) == ["MeshSimulator", "MeshGraphNet", "persistence"]
    assert all(score["one_step_rmse"]["1"] > 0 for score in result["scores"].values())
    assert result["frames seen"]["MeshSimulator"] > 0


def test_own_simulation(tmp_path: Path) -> None:
    result = load("own_simulation").main(tmp_path / "prediction.pvd", epochs=3)
    # The left end of nine nodes, less the two corners, which belong to walls of 25 nodes.
    assert result["nodes"] == {"inflow": 7, "wall": 50}
    # A fifth of 160 frames is 32, of which 8 are read.
    assert result["frames"] == 24
    assert len(result["fields"]) == 6
    assert result["error"] < 0.5 * result["error of persistence"]


def test_rollout_animation(tmp_path: Path) -> None:
    result = load("rollout_animation").main(tmp_path / "flow.gif", tmp_path / "errors.png")
    assert (tmp_path / "flow.gif").read_bytes().startswith(b"GIF8")
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")
    assert result["frames"] == 82
    shares = result["relative error"]
    # Of the strength of the vortices, 0.45 of the stream's, persistence is wrong by all of it.
    assert 0.3 < shares["persistence"] < 0.6
    assert shares["model"] < 0.5 * shares["persistence"]


def hidden_mae_of_interpolation(folder: Path, test: float = 0.2) -> float:
    """Mean absolute error of numpy's interpolation at what only the ground truth shows."""
    ground, shown = (
        np.genfromtxt(folder / name, delimiter=",", skip_header=1)[:, 1:].T
        for name in ("pm25_ground.txt", "pm25_missing.txt")
    )
    steps, errors = np.arange(ground.shape[1]), []
    for truth, seen in zip(ground, shown):
        given = np.isfinite(seen)
        line = np.interp(steps, steps[given], seen[given])
        hidden = np.isfinite(truth) & ~given & (steps >= round((1 - test) * len(steps)))
        errors.append(np.abs(line - truth)[hidden])
    return float(np.concatenate(errors).mean())


def test_impute_air_quality(tmp_path: Path) -> None:
    example = load("impute_air_quality")
    result = example.main(["--epochs", "3", "--picture", str(tmp_path / "week.png")])
    expected = hidden_mae_of_interpolation(example.SAMPLE / "raw")
    assert result["LinearInterpolation"]["mae"] == pytest.approx(expected, rel=1e-5)
    # Nine out of ten values are seen, and the stations differ by a constant and noise of +-9.
    assert result["Performer"]["mae"] < 0.6 * result["NearestStations"]["mae"]
    assert result["epochs"] == 3
    assert (tmp_path / "week.png").stat().st_size > 10_000


def last_value_mae(path: Path) -> list[float]:
    """Mean absolute error at 15, 30, 60 minutes and of all steps, by the definition."""
    with h5py.File(path) as file:
        speed = file["df/block0_values"][:]
    windows = len(speed) - 23
    test = windows - round(0.2 * windows)
    errors: list[list[float]] = [[] for _ in range(12)]
    for start in range(test, windows):
        last, ahead = speed[start + 11], speed[start + 12 : start + 24]
        for step in range(12):
            observed = ahead[step] != 0
            errors[step] += np.abs(ahead[step] - last)[observed].tolist()
    return [float(np.mean(errors[step])) for step in (2, 5, 11)] + [
        float(np.mean(np.hstack(errors)))
    ]


def reported(scores: dict) -> list[float]:
    return [scores["horizons"][step]["mae"] for step in ("3", "6", "12")] + [
        scores["average"]["mae"]
    ]


def test_metr_la_from_raw_files() -> None:
    example = load("metr_la_from_raw_files")
    metrics = example.main(["--epochs", "2", "--channels", "8"])
    assert metrics["windows"] == {"train": 286, "val": 41, "test": 82}
    expected = last_value_mae(example.SAMPLE / "raw" / "metr-la.h5")
    np.testing.assert_allclose(reported(metrics["baselines"]["last_value"]), expected, rtol=1e-5)
    assert np.isfinite(reported(metrics["test"])).all()


@pytest.mark.slow
def test_metr_la_from_real_files(shared_data: Path, tmp_path: Path) -> None:
    shutil.copytree(shared_data / "metr_la" / "raw", tmp_path / "raw")
    metrics = load("metr_la_from_raw_files").main(["--root", str(tmp_path), "--minutes", "2"])
    assert metrics["windows"] == {"train": 23974, "val": 3425, "test": 6850}
    last_value = metrics["baselines"]["last_value"]
    assert [round(value, 3) for value in reported(last_value)] == [4.124, 5.222, 6.908, 5.251]
    assert metrics["test"]["average"]["mae"] < 5.251
