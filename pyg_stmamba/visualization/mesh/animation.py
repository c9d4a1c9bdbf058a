"""A rollout as a moving picture: prediction, truth and error on one colour scale."""

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from tqdm import tqdm

from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.whole_file import written_whole
from pyg_stmamba.visualization.mesh.frame_pairs import frame_pairs, one_frame
from pyg_stmamba.visualization.mesh.mesh_fields import (
    ColorScale,
    color_bar,
    color_scale,
    draw_field,
    field_panels,
    magnitude,
    triangulation,
)
from pyg_stmamba.visualization.style import DOTS_PER_INCH, house_style, with_unit

# Frames that are looked at to find the colour scale.
LOOKED_AT = 24


def animate_rollout(
    prediction: MeshTrajectory,
    truth: MeshTrajectory,
    path: str | os.PathLike[str],
    *,
    field: str = "velocity",
    every: int = 10,
    frames_per_second: float = 12.0,
    width: int = 900,
    colors: int = 128,
    progress: bool = True,
) -> Path:
    r"""Writes prediction, truth and error of a rollout as a moving picture: a GIF, or an MP4 if
    :obj:`ffmpeg` is installed.

    Of a vector the length is shown, and the length of the difference as its error. All three
    panels have one colour scale, taken from the truth.

    Args:
        prediction: The prediction.
        truth: The truth, which has a frame at each time of the prediction up to its end.
        path: The file, which ends in :obj:`.gif` or :obj:`.mp4`.
        field: Which field. (default: :obj:`"velocity"`)
        every: Shows each so-manyth frame only. (default: :obj:`10`)
        frames_per_second: How many are shown in a second. (default: :obj:`12.0`)
        width: Width of the picture in pixels. (default: :obj:`900`)
        colors: How many colours a GIF has, at most 256; fewer make a smaller file.
            (default: :obj:`128`)
        progress: Whether to show a progress bar. (default: :obj:`True`)

    Returns:
        pathlib.Path: The file.

    Raises:
        ValueError: If the file's ending is another, the mesh is not plane, or the two
            trajectories do not fit.
        OSError: If an MP4 is asked for and there is no :obj:`ffmpeg`.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in (".gif", ".mp4"):
        raise ValueError(f"asked for {path.name!r}, the file must end in .gif or .mp4")
    if ending == ".mp4" and shutil.which("ffmpeg") is None:
        raise OSError(
            f"to write {path.name!r} the program ffmpeg is needed and was not found; install it, "
            "or write a .gif"
        )
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    pairs = frame_pairs(prediction, truth)[::every]
    if not 2 <= colors <= 256:
        raise ValueError(f"a GIF has 2 to 256 colors, got {colors}")
    stage = _Stage(truth, field, pairs[:, 1], width)
    pictures = (
        stage.picture(
            one_frame(prediction, field, ours), one_frame(truth, field, theirs), truth.times[theirs]
        )
        for ours, theirs in tqdm(pairs, "drawing", unit="frame", disable=not progress)
    )
    with written_whole(path) as temporary:
        if ending == ".gif":
            _write_gif(pictures, temporary, frames_per_second, _palette(stage.scale, colors))
        else:
            _write_mp4(pictures, temporary, frames_per_second)
    return path


class _Stage:
    """The figure, made once; from frame to frame only colours and the clock change."""

    @house_style
    def __init__(self, truth: MeshTrajectory, field: str, shown: np.ndarray, width: int) -> None:
        triangles, empty = triangulation(truth.mesh), np.zeros(truth.num_nodes)
        looked_at = shown[:: max(1, len(shown) // LOOKED_AT)]
        self.scale = color_scale(
            [magnitude(one_frame(truth, field, number)) for number in looked_at]
        )
        figure, panels = field_panels(truth.mesh, 3, width / DOTS_PER_INCH, DOTS_PER_INCH)
        self.canvas = FigureCanvasAgg(figure)
        self.drawn = [draw_field(axes, triangles, empty, self.scale) for axes in panels]
        for axes, name in zip(panels, ("prediction", "truth", "error")):
            axes.set_title(name)
        quantity = field if truth.channels(field) == 1 else f"magnitude of {field}"
        label = with_unit(quantity, truth.units.get(field, ""))
        color_bar(figure, self.drawn[0], panels, self.scale, label)
        self.clock = panels[0].set_title("t = 0", loc="right")
        self.canvas.draw()
        figure.set_layout_engine("none")  # panels must not wander from frame to frame

    def picture(self, prediction: np.ndarray, truth: np.ndarray, time: float) -> Image.Image:
        values = (magnitude(prediction), magnitude(truth), magnitude(prediction - truth))
        for drawn, shown in zip(self.drawn, values):
            drawn.set_array(shown)
        self.clock.set_text(f"t = {time:.2f}")
        self.canvas.draw()
        return Image.fromarray(np.asarray(self.canvas.buffer_rgba())[..., :3].copy())


def _palette(scale: ColorScale, colors: int) -> Image.Image:
    """The colours of the scale, and a few greys for the letters, alike in all frames."""
    greys = np.repeat(np.linspace(0, 255, max(2, colors // 8))[:, None], 3, axis=1)
    steps = np.linspace(0, 1, max(0, colors - len(greys)))
    shades = 255 * colormaps[scale.colors](steps)[:, :3]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([greys, shades]).round().astype(np.uint8).tobytes())
    return palette


def _write_gif(
    pictures: Iterable[Image.Image], path: Path, frames_per_second: float, palette: Image.Image
) -> None:
    frames = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in pictures)
    first = next(frames)
    first.save(
        path,
        "GIF",
        save_all=True,
        append_images=frames,
        duration=max(20, round(1000 / frames_per_second)),
        loop=0,
        optimize=False,
    )


def _write_mp4(pictures: Iterable[Image.Image], path: Path, frames_per_second: float) -> None:
    frames = iter(pictures)
    first = next(frames)
    # Players want even numbers of pixels and this layout of colours.
    command = ["ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{first.width}x{first.height}", "-r", f"{frames_per_second:g}", "-i", "-"]
    command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white", "-pix_fmt", "yuv420p"]
    command += ["-f", "mp4", str(path)]
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=messages)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            for frame in itertools.chain([first], frames):
                pipe.write(frame.tobytes())
        if process.wait() != 0:
            messages.seek(0)
            said = messages.read().decode(errors="replace").strip()
            raise OSError(f"ffmpeg could not write the animation: {said}")
