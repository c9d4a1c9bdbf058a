from collections.abc import Callable

import numpy as np
import pytest
import torch

from pyg_stmamba.data.mesh.frame_statistics import frame_statistics
from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol
from pyg_stmamba.data.mesh.mesh_split import MeshSplit
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.models.mesh_model import MeshModel
from pyg_stmamba.models.mesh_simulator import MeshSimulator
from pyg_stmamba.training.mesh.simulator import Simulator, facts_of

WIDTH, HEIGHT = 2.2, 0.8


def hole_mesh() -> Mesh:
    """A channel of triangles, finer to the left, with a rectangular body in it."""
    x, y = WIDTH * np.linspace(0, 1, 23) ** 1.5, np.linspace(0, HEIGHT, 9)
    pos = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    i, j = np.meshgrid(np.arange(22), np.arange(8), indexing="ij")
    solid = (i >= 8) & (i < 11) & (j >= 3) & (j < 5)
    corner = (i * 9 + j)[~solid]
    triangles = np.concatenate(
        [
            np.stack([corner, corner + 9, corner + 10], axis=1),
            np.stack([corner, corner + 10, corner + 1], axis=1),
        ]
    )
    left, top = np.divmod(np.arange(len(pos)), 9)
    node_type = np.zeros(len(pos), dtype=int)
    node_type[left == 22] = 5
    node_type[(top == 0) | (top == 8)] = 6
    node_type[(left == 0) & (top > 0) & (top < 8)] = 4
    node_type[(left >= 8) & (left <= 11) & (top >= 3) & (top <= 5)] = 1
    inside = (left > 8) & (left < 11) & (top == 4)
    kept = np.cumsum(~inside) - 1
    return Mesh(pos[~inside], {"triangle": kept[triangles]}, node_type[~inside])


@pytest.fixture(scope="session")
def mesh() -> Mesh:
    return hole_mesh()


@pytest.fixture(scope="session")
def node_area(mesh: Mesh) -> np.ndarray:
    """A third of each triangle around a node, by the shoelace formula."""
    area = np.zeros(mesh.num_nodes)
    for triangle in mesh.cells["triangle"]:
        (ax, ay), (bx, by), (cx, cy) = mesh.pos[triangle]
        area[triangle] += abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) / 6
    return area


@pytest.fixture
def make_trajectory(mesh: Mesh) -> Callable[..., MeshTrajectory]:
    """Makes a trajectory of given fields ``[T, N, C]``."""

    def make(first: float = 0.0, step: float = 0.1, name: str = "made", **fields) -> MeshTrajectory:
        parameters = fields.pop("parameters", None)
        times = first + step * np.arange(len(next(iter(fields.values()))))
        return MeshTrajectory(mesh, fields, times, parameters=parameters, name=name)

    return make


def wavy_flow(columns: int, frames: int, name: str) -> MeshTrajectory:
    """Waves that travel through a small channel, with an inlet whose speed swings."""
    grid = np.meshgrid(np.arange(columns), np.arange(4.0), indexing="ij")
    pos = np.stack(grid, axis=-1).reshape(-1, 2)
    corner = (np.arange(columns - 1)[:, None] * 4 + np.arange(3)).ravel()
    triangles = np.concatenate(
        [
            np.stack([corner, corner + 4, corner + 5], axis=1),
            np.stack([corner, corner + 5, corner + 1], axis=1),
        ]
    )
    x, y = pos.T
    node_type = np.where((y == 0) | (y == 3), 6, 0)
    node_type[(x == columns - 1) & (node_type == 0)] = 5
    node_type[(x == 0) & (node_type == 0)] = 4
    times = 0.1 * np.arange(1, frames + 1)
    phase = times[:, None] * 3 - x
    speed = y * (3 - y) * (1 + 0.3 * np.sin(phase))
    velocity = np.stack([speed, 0.1 * y * (3 - y) * np.cos(phase)], axis=-1)
    pressure = (columns - x + 0.5 * np.cos(phase))[..., None]
    return MeshTrajectory(
        Mesh(pos, {"triangle": triangles}, node_type),
        {"velocity": velocity.astype(np.float32), "pressure": pressure.astype(np.float32)},
        times,
        parameters={"viscosity": 0.01 * columns},
        units={"velocity": "m/s"},
        name=name,
    )


@pytest.fixture(scope="session")
def flows() -> list[MeshTrajectory]:
    """Simulations on meshes of different sizes."""
    sizes = [(5, 30), (6, 30), (4, 30), (7, 26)]
    return [wavy_flow(columns, frames, f"flow {columns}") for columns, frames in sizes]


@pytest.fixture
def make_flow() -> Callable[..., MeshTrajectory]:
    def make(columns: int, frames: int) -> MeshTrajectory:
        return wavy_flow(columns, frames, "made")

    return make


@pytest.fixture
def split(flows: list[MeshTrajectory]) -> MeshSplit:
    return MeshSplit(flows[:2], flows[2:3], flows[3:])


@pytest.fixture
def protocol() -> MeshProtocol:
    return MeshProtocol(history=4, conditions=("viscosity",))


@pytest.fixture
def make_simulator(flows: list[MeshTrajectory], protocol: MeshProtocol) -> Callable[..., Simulator]:
    """Makes an untrained surrogate that does predict changes."""

    def make(kind: type[MeshModel] = MeshSimulator, **options) -> Simulator:
        torch.manual_seed(1)
        sizes = {"channels": 8, "num_layers": 1}
        if kind is MeshSimulator:
            sizes |= {"d_state": 4}
        model = kind(**protocol.model_arguments(flows[0]), **{**sizes, **options})
        model.fit(frame_statistics(protocol.windows(flows[:2])))
        torch.nn.init.normal_(model.decoder.last.weight, std=0.1)
        return Simulator(model.eval(), protocol, facts_of(flows))

    return make
