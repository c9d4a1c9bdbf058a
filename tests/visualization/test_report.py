import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyg_stmamba.visualization import write_report
from pyg_stmamba.visualization.run_pictures import PICTURES

PNG = b"\x89PNG\r\n\x1a\n"


def words(html: str) -> str:
    return re.sub(
        r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.S))
    )


def without(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink()
    return folder


def test_the_report_holds_every_number(usual_run) -> None:
    folder = usual_run
    text = words((folder / "report.html").read_text(encoding="utf-8"))
    metrics = json.loads((folder / "metrics.json").read_text())
    for method in (metrics["test"], *metrics["baselines"].values()):
        for scores in (*method["horizons"].values(), method["average"]):
            assert f"{scores['mae']:.3f}" in text
            assert f"{scores['rmse']:.3f}" in text
            assert f"{100 * scores['mape']:.2f}%" in text
    for piece in (
        "131,337",
        "23974",
        "3425",
        "6850",
        "2.13.0",
        "cpu",
        "432 s (7.2 min)",
        "selective_scan: torch",
        "channels: 64",
        "last value",
        "historical average",
        "15 min ahead",
        "30 min ahead",
        "1 h ahead",
        "average of all steps",
    ):
        assert piece in text, piece
    # 1.31 is the better baseline's factor: 1 - 1 / 1.31.
    assert (
        f"{metrics['test']['average']['mae']:.3f} mph, 23.7% below the best baseline (last value"
        in text
    )
    assert "Left out" not in text


def test_the_report_says_when_a_baseline_wins(make_run) -> None:
    folder = without(make_run(samples=5), "metrics.csv")
    with np.load(folder / "forecasts.npz") as stored:
        np.savez(folder / "forecasts.npz", unit=stored["unit"])
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["test"]["average"]["mae"] = 2 * metrics["baselines"]["last_value"]["average"]["mae"]
    metrics["model"] = "Performer"
    (folder / "metrics.json").write_text(json.dumps(metrics))
    text = words(write_report(folder).read_text(encoding="utf-8"))
    assert "Performer: average absolute error" in text
    assert "100.0% above the best baseline (last value" in text


def test_the_report_stands_alone(usual_run) -> None:
    folder = usual_run
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r'(?:src|href)="(.{5})', html)) == {"data:"}
    assert html.count('src="data:image/png;base64,') == len(PICTURES)
    assert not re.search(r"<(script|link|iframe)|http|url\(|@import", html)
    pictures = sorted((folder / "pictures").iterdir())
    assert [path.name for path in pictures] == sorted(f"{name}.png" for name in PICTURES)
    for path in pictures:
        assert path.read_bytes().startswith(PNG)


def test_text_from_the_data_is_escaped(make_run) -> None:
    evil = "<script>alert(1)</script>$x_{$"  # the end would be a broken formula

    def rename(stored: dict) -> None:
        stored["node_ids"] = np.array([f"{evil}{n}" for n in range(3)])
        stored["unit"] = np.array(evil)

    folder = make_run(rename, samples=20, nodes=3)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["baselines"][evil] = metrics["baselines"]["last_value"]
    metrics["device"] = evil
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.yaml").write_text(f"name: {evil}\n")
    html = write_report(folder).read_text(encoding="utf-8")
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4


def test_a_bare_run_is_reported_with_what_is_left_out(make_run) -> None:
    def strip(stored: dict) -> None:
        stored["start_timestamps"] = np.zeros(0, dtype=np.int64)
        stored["positions"] = np.zeros((0, 2))
        stored["time_of_day_mae"] = np.zeros(0)
        stored["step_seconds"] = np.array(0)

    folder = make_run(strip, samples=20, epochs=1)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["test"]["average"]["mae"] = float("nan")
    metrics["test"]["horizons"]["3"] = {"mae": None, "rmse": 1.0}
    metrics["baselines"] = {}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "pictures").mkdir()
    (folder / "pictures" / "time_of_day_error.png").write_bytes(b"of an earlier run")
    text = words(write_report(folder).read_text(encoding="utf-8"))
    for piece in (
        "no timestamps",
        "no positions",
        "time of day error: time_of_day_mae",
        "errors that are not numbers",
        "step 3",
        "average error on the test set is not",
    ):
        assert piece in text, piece
    assert not (folder / "pictures" / "time_of_day_error.png").exists()
    assert (folder / "pictures" / "learning_curves.png").exists()


@pytest.mark.parametrize("kept", ["metrics.json", "metrics.csv", "forecasts.npz", "config.yaml"])
def test_each_piece_alone_gives_a_report(make_run, kept: str) -> None:
    folder = make_run(samples=3, nodes=2, horizon=2, epochs=2)
    others = {"metrics.json", "metrics.csv", "forecasts.npz", "config.yaml"} - {kept}
    for name in others:
        (folder / name).unlink()
    text = words(write_report(folder).read_text(encoding="utf-8"))
    for name in others:
        assert f"{name} is not in the folder" in text


def test_a_tiny_run(make_run) -> None:
    html = write_report(make_run(nodes=1, samples=1, horizon=1, epochs=1))
    assert html.name == "report.html"
    assert html.read_text(encoding="utf-8").count("<img") == len(PICTURES)


def test_writing_twice_gives_the_same_page(make_run) -> None:
    folder = without(make_run(samples=5), "forecasts.npz")
    first = write_report(folder).read_bytes()
    assert write_report(str(folder)).read_bytes() == first
    assert not list(folder.rglob("*.part"))


def test_a_full_disk_leaves_the_old_files(make_run, monkeypatch) -> None:
    folder = without(make_run(samples=5), "forecasts.npz")
    write_report(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def half(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        write_report(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_nothing_is_printed_and_no_window_is_opened(make_run, capfd) -> None:
    write_report(without(make_run(samples=5), "forecasts.npz"))
    assert capfd.readouterr() == ("", "")


def test_pyplot_stays_unloaded() -> None:
    assert importlib.util.find_spec("matplotlib") is not None
    code = "import sys, pyg_stmamba.visualization; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
