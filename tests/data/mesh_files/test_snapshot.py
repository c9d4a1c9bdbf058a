import numpy as np
import pytest

from pyg_stmamba.data.mesh_files.snapshot import Snapshot, is_flat, linear_name, mesh_of_snapshot

meshio = pytest.importorskip("meshio")


def test_higher_order_cells_are_read_by_their_corners():
    corners = np.array([[0, 0], [2, 0], [0, 2], [2, 2]])
    middles = np.array([[1, 0], [1, 1], [0, 1], [2, 1], [1, 2]])
    # Middles first, so that nodes get other numbers.
    points = np.concatenate([middles, corners])
    cells = {"triangle6": np.array([[5, 6, 7, 0, 1, 2], [6, 8, 7, 3, 4, 1]])}
    mesh, nodes = mesh_of_snapshot(Snapshot(points, cells, {}))
    assert nodes.tolist() == [5, 6, 7, 8]
    np.testing.assert_array_equal(mesh.pos, corners)
    assert mesh.cells["triangle"].tolist() == [[0, 1, 2], [1, 3, 2]]


@pytest.mark.parametrize(
    "kind", [kind for kind in meshio._mesh.topological_dimension if "VTK" not in kind]
)
def test_names_of_cells(kind):
    dim = meshio._mesh.topological_dimension[kind]
    known = ("line", "triangle", "quad", "tetra", "pyramid", "wedge", "hexahedron")
    begin = kind.rstrip("0123456789")
    if begin in known:
        assert linear_name(kind) == begin
        assert {"line": 1, "triangle": 2, "quad": 2}.get(begin, 3) == dim
    else:
        with pytest.raises(ValueError, match=f"cells of type '{kind}' cannot be read; what can"):
            linear_name(kind)


def test_only_the_highest_dimension_stays_and_points_without_cells_go():
    points = np.array([[9, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=float)
    cells = {
        "vertex": np.array([[0]]),
        "line": np.array([[1, 2]]),
        "triangle": np.array([[1, 2, 3]]),
        "tetra": np.array([[1, 2, 3, 4]]),
        "quad": np.zeros((0, 4), dtype=int),
    }
    mesh, nodes = mesh_of_snapshot(Snapshot(points, cells, {}))
    assert nodes.tolist() == [1, 2, 3, 4]
    assert {kind: block.tolist() for kind, block in mesh.cells.items()} == {"tetra": [[0, 1, 2, 3]]}
    assert mesh.dim == 3


def test_flat_meshes_become_two_dimensional_whatever_their_height():
    points = np.array([[0, 0, 5], [1, 0, 5], [0, 1, 5 + 1e-8], [0, 0, 0]])
    mesh, _ = mesh_of_snapshot(Snapshot(points, {"triangle": np.array([[0, 2, 1]])}, {}))
    np.testing.assert_array_equal(mesh.pos, points[:3, :2])
    # Counterclockwise.
    assert mesh.cells["triangle"].tolist() == [[0, 1, 2]]
    assert is_flat(points[:3])
    assert not is_flat(points)
    assert not is_flat(points[:3, :2])


def test_bad_meshes():
    points = np.eye(3)
    with pytest.raises(ValueError, match="no cells with an area or a volume; the cells are line"):
        mesh_of_snapshot(Snapshot(points, {"line": np.array([[0, 1]])}, {}))
    with pytest.raises(ValueError, match="the cells are -"):
        mesh_of_snapshot(Snapshot(points, {}, {}))
    with pytest.raises(ValueError, match="triangle 0 has the nodes"):
        mesh_of_snapshot(Snapshot(points, {"triangle": np.array([[0, 1, 3]])}, {}))
    flat = np.array([[0, 0], [1, 1], [2, 2.0]])
    with pytest.raises(ValueError, match="no area"):
        mesh_of_snapshot(Snapshot(flat, {"triangle": np.array([[0, 1, 2]])}, {}))
