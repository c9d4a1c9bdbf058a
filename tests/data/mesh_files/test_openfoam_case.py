import gzip
import pickle

import numpy as np
import pytest

from pyg_stmamba.data.mesh.node_types import NODE_TYPES
from pyg_stmamba.data.mesh_files.openfoam_case import OpenFoamCase
from pyg_stmamba.data.mesh_files.read_trajectory import read_trajectory

pyvista = pytest.importorskip("pyvista")

NX, NY, TIMES = 3, 2, (0, 0.5)


def header(kind, name):
    return f"FoamFile {{ version 2.0; format ascii; class {kind}; object {name}; }}\n"


def listed(rows):
    return f"{len(rows)}\n(\n" + "\n".join(rows) + "\n)\n"


def vector(numbers, order):
    return "(" + " ".join(f"{numbers[axis]:g}" for axis in order) + ")"


def box(front="empty"):
    """Points, faces with owner and neighbor, and patches of 3 times 2 cubes in one layer."""

    def point(i, j, k):
        return i + (NX + 1) * (j + (NY + 1) * k)

    def face(*corners):
        return "4(" + " ".join(str(point(*corner)) for corner in corners) + ")"

    inner, patches = (
        [],
        {"inlet": [], "outlet": [], "upperWall": [], "side": [], "frontAndBack": []},
    )
    for j in range(NY):
        for i in range(NX):
            cell = i + NX * j
            right = face((i + 1, j, 0), (i + 1, j + 1, 0), (i + 1, j + 1, 1), (i + 1, j, 1))
            up = face((i, j + 1, 0), (i, j + 1, 1), (i + 1, j + 1, 1), (i + 1, j + 1, 0))
            if i == 0:
                left = face((0, j, 0), (0, j, 1), (0, j + 1, 1), (0, j + 1, 0))
                patches["inlet"].append((left, cell))
            if j == 0:
                down = face((i, 0, 0), (i + 1, 0, 0), (i + 1, 0, 1), (i, 0, 1))
                patches["side"].append((down, cell))
            if i < NX - 1:
                inner.append((right, cell, cell + 1))
            else:
                patches["outlet"].append((right, cell))
            if j < NY - 1:
                inner.append((up, cell, cell + NX))
            else:
                patches["upperWall"].append((up, cell))
            back = face((i, j, 0), (i, j + 1, 0), (i + 1, j + 1, 0), (i + 1, j, 0))
            fore = face((i, j, 1), (i + 1, j, 1), (i + 1, j + 1, 1), (i, j + 1, 1))
            patches["frontAndBack"] += [(back, cell), (fore, cell)]
    points = [
        (i * 1.0, j * 0.5, k * 0.1) for k in range(2) for j in range(NY + 1) for i in range(NX + 1)
    ]
    kinds = {"upperWall": "wall", "frontAndBack": front}
    return points, sorted(inner, key=lambda row: row[1:]), patches, kinds


def write_case(folder, front="empty", order=(0, 1, 2), zipped=False):
    """Writes a case with U = (1 + t + cell / 10, cell / 100, 0) and p = 10 - cell + t in cells;
    :obj:`order` says which axis of the file each axis becomes."""
    points, inner, patches, kinds = box(front)
    mesh = folder / "constant" / "polyMesh"
    mesh.mkdir(parents=True)
    (folder / "system").mkdir()
    (folder / "system" / "controlDict").write_text(
        header("dictionary", "controlDict")
        + "startFrom startTime; startTime 0; stopAt endTime; endTime 1; deltaT 0.5;\n"
        + "writeControl timeStep; writeInterval 1;\n"
    )
    faces = [row[0] for row in inner] + [row[0] for rows in patches.values() for row in rows]
    owner = [row[1] for row in inner] + [row[1] for rows in patches.values() for row in rows]
    entries, start = [], len(inner)
    for name, rows in patches.items():
        entries.append(
            f"{name}\n{{\n // of type nothing;\n type {kinds.get(name, 'patch')};\n"
            f" inGroups 1(group); nFaces {len(rows)}; startFace {start};\n}}"
        )
        start += len(rows)
    files = {
        "points": ("vectorField", [vector(point, order) for point in points]),
        "faces": ("faceList", faces),
        "owner": ("labelList", list(map(str, owner))),
        "neighbour": ("labelList", [str(row[2]) for row in inner]),
        "boundary": ("polyBoundaryMesh", entries),
    }
    for name, (kind, rows) in files.items():
        text = header(kind, name) + listed(rows)
        if zipped:
            (mesh / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (mesh / name).write_text(text)
    for time in TIMES:
        (folder / f"{time:g}").mkdir()
        velocity = [(1 + time + 0.1 * cell, 0.01 * cell, 0) for cell in range(NX * NY)]
        rows = [vector(u, order) for u in velocity]
        inlet = vector((2, 0, 0), order)
        (folder / f"{time:g}" / "U").write_text(
            header("volVectorField", "U")
            + "dimensions [0 1 -1 0 0 0 0];\ninternalField nonuniform List<vector> "
            + listed(rows)
            + f";\nboundaryField {{ inlet {{ type fixedValue; value uniform {inlet}; }}\n"
            + "outlet { type zeroGradient; } side { type zeroGradient; }\n"
            + f"upperWall {{ type noSlip; }} frontAndBack {{ type {front}; }} }}\n"
        )
        (folder / f"{time:g}" / "p").write_text(
            header("volScalarField", "p")
            + "dimensions [0 2 -2 0 0 0 0];\ninternalField nonuniform List<scalar> "
            + listed([f"{10 - cell + time:g}" for cell in range(NX * NY)])
            + ";\nboundaryField { inlet { type zeroGradient; }\n"
            + "outlet { type fixedValue; value uniform 0; } side { type zeroGradient; }\n"
            + f"upperWall {{ type zeroGradient; }} frontAndBack {{ type {front}; }} }}\n"
        )
    return folder


# Nodes of the plane, by row from below; values as the cells and faces around them have them.
U_LOW = [2, 1.55, 1.65, 1.7]
U_MIDDLE = [2, 1.7, 1.8, 1.85]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1)])
def test_a_plane_case(tmp_path, order):
    trajectory = read_trajectory(write_case(tmp_path / "case", order=order))
    assert trajectory.mesh.dim == 2
    assert trajectory.mesh.num_nodes == (NX + 1) * (NY + 1)
    assert {kind: len(block) for kind, block in trajectory.mesh.cells.items()} == {"quad": 6}
    assert trajectory.times.tolist() == list(TIMES)
    assert trajectory.name == "case"
    x, y = trajectory.mesh.pos.T
    rows = np.lexsort((x, y))
    np.testing.assert_allclose(y[rows].reshape(3, 4), [[0] * 4, [0.5] * 4, [1] * 4], atol=1e-6)
    np.testing.assert_allclose(x[rows].reshape(3, 4), [[0, 1, 2, 3]] * 3, atol=1e-6)
    velocity = trajectory.frames("U", 1, 2)[rows, 0].reshape(3, 4, 2)
    # On the border the mean over faces of patches that the point is on; cells 0 to 2 are below.
    np.testing.assert_allclose(velocity[1, 1:3, 0], U_MIDDLE[1:3], rtol=1e-6)
    np.testing.assert_allclose(velocity[1, :, 0], U_MIDDLE, rtol=1e-6)
    np.testing.assert_allclose(velocity[0, 1:3, 0], U_LOW[1:3], rtol=1e-6)
    assert not velocity[2].any()
    pressure = trajectory.frames("p", 1, 2)[rows, 0, 0].reshape(3, 4)
    np.testing.assert_allclose(pressure[1], [9, 8.5, 7.5, 0], rtol=1e-6)
    types = np.array(NODE_TYPES)[trajectory.mesh.node_type[rows]].reshape(3, 4)
    assert types[1].tolist() == ["inflow", "normal", "normal", "outflow"]
    assert types[2].tolist() == ["inflow", "wall", "wall", "wall"]
    assert types[0, 0] == "inflow"


def test_a_case_in_space(tmp_path):
    folder = write_case(tmp_path / "case", front="patch")
    trajectory = read_trajectory(folder)
    assert trajectory.mesh.dim == 3
    assert {kind: len(block) for kind, block in trajectory.mesh.cells.items()} == {"hexahedron": 6}
    grid = pyvista.OpenFOAMReader(str(folder / "system" / "controlDict"))
    grid.skip_zero_time = False
    grid.set_active_time_value(0.5)
    inside = grid.read()["internalMesh"]
    np.testing.assert_array_equal(trajectory.mesh.pos, inside.points)
    np.testing.assert_array_equal(trajectory.mesh.cells["hexahedron"], inside.cells_dict[12])
    pressure = trajectory.frames("p", 1, 2)[:, 0, 0]
    np.testing.assert_array_equal(pressure, inside.point_data["p"])
    wall = np.isclose(trajectory.mesh.pos[:, 1], 1)
    velocity = trajectory.frames("U", 1, 2)[:, 0]
    assert not velocity[wall].any()
    np.testing.assert_array_equal(velocity[~wall], inside.point_data["U"][~wall])


def test_patches_by_name_in_rules(tmp_path):
    trajectory = read_trajectory(
        write_case(tmp_path / "case"),
        fields={"velocity": "U"},
        node_types={"wall": "upperWall | side", "inflow": "inlet", "outflow": "outlet"},
    )
    x, y = trajectory.mesh.pos.T
    types = np.array(NODE_TYPES)[trajectory.mesh.node_type]
    level = np.isclose(y, 0) | np.isclose(y, 1)
    assert (types[level] == "wall").all()
    assert (types[~level & (x == 0)] == "inflow").all()
    assert (types[~level & (x == 3)] == "outflow").all()
    with pytest.raises(ValueError, match=r"names 'top'.* names are x, y, boundary, inlet, outlet"):
        read_trajectory(tmp_path / "case", node_types={"wall": "top"})


def test_zipped_meshes_and_files_of_a_case(tmp_path):
    folder = write_case(tmp_path / "case", zipped=True)
    (folder / "case.foam").touch()
    for path in (folder, folder / "case.foam"):
        series = pickle.loads(pickle.dumps(OpenFoamCase(path)))
        assert series.times.tolist() == [0, 0.5]
        assert set(series.read(1).patches) == {"inlet", "outlet", "upperWall", "side"}
        assert series.patch_types["frontAndBack"] == "empty"
        assert series.where(1) == f"time 0.5 of {folder}"


def test_no_case(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no OpenFOAM case: constant/polyMesh/bound"):
        OpenFoamCase(tmp_path)
    (tmp_path / "processor0").mkdir()
    with pytest.raises(ValueError, match="is decomposed; run reconstructPar on it first"):
        OpenFoamCase(tmp_path)
