"""Generates the sample: an invented channel flow in the format of cylinder_flow. None of it is
real data."""

import sys
from pathlib import Path

import numpy as np

from pyg_stmamba.data.mesh import NODE_TYPES, Mesh, MeshTrajectory
from pyg_stmamba.data.mesh_files.deepmind_writer import write_deepmind

FRAMES = 6


def channel(columns: int, speed: float) -> MeshTrajectory:
    x, y = np.meshgrid(np.linspace(0, 1.6, columns), np.linspace(0, 0.4, 4), indexing="ij")
    pos = np.stack([x.ravel(), y.ravel()], axis=1)
    corner = (np.arange(columns - 1)[:, None] * 4 + np.arange(3)).ravel()
    lower = np.stack([corner, corner + 4, corner + 5], axis=1)
    upper = np.stack([corner, corner + 5, corner + 1], axis=1)
    node_type = np.full(len(pos), NODE_TYPES.index("normal"))
    node_type[pos[:, 0] == 0] = NODE_TYPES.index("inflow")
    node_type[pos[:, 0] == 1.6] = NODE_TYPES.index("outflow")
    node_type[(pos[:, 1] == 0) | (pos[:, 1] == 0.4)] = NODE_TYPES.index("wall")

    times = np.arange(FRAMES) * 0.01
    profile = speed * pos[:, 1] * (0.4 - pos[:, 1]) / 0.04
    velocity = np.zeros((FRAMES, len(pos), 2))
    velocity[..., 0] = profile * (1 - np.exp(-times[:, None] / 0.02))
    pressure = np.tile((1.6 - pos[:, 0]) * speed, (FRAMES, 1))[..., None]
    return MeshTrajectory(
        Mesh(pos, {"triangle": np.concatenate([lower, upper])}, node_type),
        # Other machines may round the last digit otherwise.
        {"velocity": velocity.round(4), "pressure": pressure.round(4)},
        times,
    )


def make_sample(folder: Path) -> None:
    for split, columns in {"train": (5, 6, 7), "valid": (5,), "test": (6,)}.items():
        flows = (channel(number, 0.5 + 0.25 * place) for place, number in enumerate(columns))
        write_deepmind(folder, split, flows)


if __name__ == "__main__":
    make_sample(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "sample/raw")
