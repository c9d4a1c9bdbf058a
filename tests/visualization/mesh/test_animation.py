import itertools
import shutil
import stat

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.visualization.mesh.animation import _Stage, animate_rollout


def frames_of(path) -> list[np.ndarray]:
    with Image.open(path) as file:
        frames = []
        for number in range(file.n_frames):
            file.seek(number)
            frames.append(np.asarray(file.convert("RGB"), dtype=int))
        return frames


@pytest.fixture
def half_wrong(mesh):
    """The true speed is 1, the prediction right of the middle of the channel 0.25."""
    velocity = np.zeros((6, mesh.num_nodes, 2))
    velocity[..., 1] = 1
    wrong = velocity.copy()
    wrong[:, mesh.pos[:, 0] > 0.8] *= 0.25
    times = np.arange(6.0)
    return (
        MeshTrajectory(mesh, {"velocity": wrong}, times),
        MeshTrajectory(mesh, {"velocity": velocity}, times),
    )


def test_a_gif_of_every_so_manyth_frame(trajectories, tmp_path):
    path = animate_rollout(
        *trajectories,
        tmp_path / "folder" / "rollout.gif",
        every=30,
        width=400,
        frames_per_second=20,
        progress=False,
    )
    with Image.open(path) as file:
        assert file.format == "GIF"
        assert file.n_frames == 4
        assert file.size[0] == 400
        assert file.info["duration"] == 50
        assert file.info["loop"] == 0
    frames = frames_of(path)
    assert all((one != other).any() for one, other in itertools.pairwise(frames))
    assert not list(path.parent.glob(".*"))


def test_colors_say_where_the_prediction_is_wrong(half_wrong, tmp_path):
    path = animate_rollout(*half_wrong, tmp_path / "a.gif", every=5, width=500, progress=False)
    stage = _Stage(half_wrong[1], "velocity", np.arange(6), 500)
    assert stage.scale[:2] == (0, 1)
    panels = stage.canvas.figure.axes
    for picture in frames_of(path):
        wanted = {
            (0, 0.2): 1.0,  # prediction
            (0, 1.4): 0.25,
            (1, 0.2): 1.0,  # truth
            (1, 1.4): 1.0,
            (2, 0.2): 0.0,  # error
            (2, 1.4): 0.75,
        }
        for (panel, x), value in wanted.items():
            column, row = panels[panel].transData.transform([x, 0.3]).round().astype(int)
            color = 255 * np.array(colormaps["viridis"](value)[:3])
            assert np.abs(picture[len(picture) - row, column] - color).max() < 12, (panel, x)


def test_few_colors_make_a_small_file(trajectories, tmp_path):
    sizes = []
    for colors in (16, 256):
        path = animate_rollout(
            *trajectories, tmp_path / "a.gif", every=50, width=400, colors=colors, progress=False
        )
        sizes.append(path.stat().st_size)
        for frame in frames_of(path):
            assert len(np.unique(frame.reshape(-1, 3), axis=0)) <= colors
    assert sizes[0] < sizes[1]


def test_a_scalar_is_shown_with_its_sign(trajectories):
    stage = _Stage(trajectories[1], "pressure", np.arange(4), 400)
    assert stage.scale.low == 0 or stage.scale.low == -stage.scale.high
    labels = [axes.get_ylabel() for axes in stage.canvas.figure.axes]
    assert labels[-1] == "pressure [Pa]"
    stage = _Stage(trajectories[1], "velocity", np.arange(4), 400)
    assert stage.canvas.figure.axes[-1].get_ylabel() == "magnitude of velocity [m/s]"


def test_a_diverged_prediction_is_drawn_up_to_where_it_is_finite(half_wrong, tmp_path):
    prediction, truth = half_wrong
    velocity = prediction.fields["velocity"].copy()
    velocity[3:] = np.nan
    broken = MeshTrajectory(prediction.mesh, {"velocity": velocity}, prediction.times)
    path = animate_rollout(broken, truth, tmp_path / "a.gif", every=1, width=300, progress=False)
    first, *_, last = frames_of(path)
    assert (first != last).any()


def test_a_progress_bar_if_asked_for(half_wrong, tmp_path, capfd):
    animate_rollout(*half_wrong, tmp_path / "a.gif", every=3, width=300, progress=False)
    assert capfd.readouterr() == ("", "")
    animate_rollout(*half_wrong, tmp_path / "a.gif", every=3, width=300)
    out, err = capfd.readouterr()
    assert out == ""
    assert "2/2" in err


def test_an_mp4_goes_through_ffmpeg(half_wrong, tmp_path, monkeypatch):
    # A stand-in that writes what it was called with and how many bytes came.
    program = tmp_path / "ffmpeg"
    program.write_text(
        '#!/bin/sh\nfor last; do :; done\nsize=$(wc -c)\necho "$* $size" > "$last"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    path = animate_rollout(*half_wrong, tmp_path / "a.mp4", every=2, width=300, progress=False)
    words = path.read_text().split()
    wide, high = map(int, words[words.index("-s") + 1].split("x"))
    assert wide == 300
    assert int(words[-1]) == 3 * wide * high * 3
    program.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    with pytest.raises(OSError, match="ffmpeg could not write the animation: no such codec"):
        animate_rollout(*half_wrong, tmp_path / "b.mp4", width=300, progress=False)
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg")
def test_a_real_mp4(half_wrong, tmp_path):
    path = animate_rollout(*half_wrong, tmp_path / "a.mp4", every=1, width=301, progress=False)
    assert path.read_bytes()[4:8] == b"ftyp"


def test_bad_input(half_wrong, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"asked for 'a.avi', the file must end in .gif or .mp4"):
        animate_rollout(*half_wrong, tmp_path / "a.avi")
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        animate_rollout(*half_wrong, tmp_path / "a.gif", every=0)
    with pytest.raises(ValueError, match="2 to 256 colors, got 1"):
        animate_rollout(*half_wrong, tmp_path / "a.gif", colors=1)
    with pytest.raises(ValueError, match="no field 'heat'"):
        animate_rollout(*half_wrong, tmp_path / "a.gif", field="heat")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=r"program ffmpeg is needed and was not found; .* \.gif"):
        animate_rollout(*half_wrong, tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())
