import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from pyg_stmamba.data.mesh.mesh import CELL_TYPES, Mesh
from pyg_stmamba.data.mesh_files.vtu_file import VTK_CELLS, node_type_array, write_vtu

meshio = pytest.importorskip("meshio")
pyvista = pytest.importorskip("pyvista")

WAYS = [("appended", False), ("appended", True), ("inline", False), ("inline", True)]


def arrays(num_points, seed=0):
    generator = np.random.default_rng(seed)
    return {
        "velocity": generator.normal(size=(num_points, 3)).astype(np.float32),
        "pressure": generator.normal(size=(num_points, 1)),
        "t": generator.normal(size=num_points).astype(np.float32),
        'stress <"&">': generator.normal(size=(num_points, 9)),
        "node_type": generator.integers(0, 7, num_points),
        "mark": generator.integers(0, 200, num_points).astype(np.uint8),
        "small": generator.integers(-9, 9, num_points).astype(np.int32),
    }


@pytest.mark.parametrize(("encoding", "compress"), WAYS)
@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra", "pyramid", "wedge", "hexahedron"])
def test_meshio_and_pyvista_read_what_is_written(lattice, tmp_path, kind, encoding, compress):
    mesh = lattice(kind, size=3)
    data = arrays(mesh.num_nodes)
    file = tmp_path / "new folder" / "one.vtu"
    write_vtu(file, mesh.pos, mesh.cells, data, encoding=encoding, compress=compress)
    points = np.pad(mesh.pos, ((0, 0), (0, 3 - mesh.dim)))

    grid = pyvista.read(file)
    assert grid.points.dtype == np.float64
    np.testing.assert_array_equal(grid.points, points)
    np.testing.assert_array_equal(grid.cells_dict[VTK_CELLS[kind]], mesh.cells[kind])
    assert set(grid.point_data.keys()) == set(data)
    # meshio at times takes one raw array for another.
    if encoding == "appended":
        file = tmp_path / "inline.vtu"
        write_vtu(file, mesh.pos, mesh.cells, data, compress=compress)
    read = meshio.read(file)
    np.testing.assert_array_equal(read.points, points)
    assert [block.type for block in read.cells] == [kind]
    # meshio numbers wedges as gmsh does.
    order = [0, 2, 1, 3, 5, 4] if kind == "wedge" else slice(None)
    np.testing.assert_array_equal(read.cells[0].data[:, order], mesh.cells[kind])
    assert set(read.point_data) == set(data)
    for name, values in data.items():
        for other in (grid.point_data[name], read.point_data[name]):
            assert other.dtype == values.dtype
            np.testing.assert_array_equal(np.reshape(other, values.shape), values)


@pytest.mark.parametrize(("encoding", "compress"), WAYS)
def test_cells_of_several_types_and_vectors_of_the_plane(tmp_path, encoding, compress):
    points = np.array([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1]], dtype=float)
    cells = {
        "quad": np.array([[0, 1, 4, 3]]),
        "line": np.array([[0, 1], [1, 2]]),
        "triangle": np.array([[1, 2, 4]], dtype=np.int32),
    }
    velocity = np.arange(10, dtype=np.float32).reshape(5, 2)
    write_vtu(
        tmp_path / "m.vtu",
        points,
        cells,
        {"velocity": velocity},
        encoding=encoding,
        compress=compress,
    )
    grid = pyvista.read(tmp_path / "m.vtu")
    assert grid.celltypes.tolist() == [9, 3, 3, 5]
    assert grid.cells.tolist() == [4, 0, 1, 4, 3, 2, 0, 1, 2, 1, 2, 3, 1, 2, 4]
    np.testing.assert_array_equal(grid["velocity"], np.pad(velocity, ((0, 0), (0, 1))))
    if encoding == "inline":
        read = meshio.read(tmp_path / "m.vtu")
        assert {block.type: block.data.tolist() for block in read.cells} == {
            kind: block.tolist() for kind, block in cells.items()
        }
        np.testing.assert_array_equal(read.point_data["velocity"][:, :2], velocity)


def test_two_components_in_space_stay_two(lattice, tmp_path):
    mesh = lattice("tetra", size=2)
    pairs = np.ones((mesh.num_nodes, 2))
    write_vtu(tmp_path / "m.vtu", mesh.pos, mesh.cells, {"pairs": pairs})
    assert pyvista.read(tmp_path / "m.vtu")["pairs"].shape == pairs.shape


def test_inline_is_xml_and_compressed_is_smaller(lattice, tmp_path):
    mesh = lattice("triangle", size=20)
    data = {"zero": np.zeros(mesh.num_nodes)}
    sizes = {}
    for encoding, compress in WAYS:
        file = tmp_path / f"{encoding}{compress}.vtu"
        write_vtu(file, mesh.pos, mesh.cells, data, encoding=encoding, compress=compress)
        sizes[encoding, compress] = file.stat().st_size
    ElementTree.parse(tmp_path / "inlineFalse.vtu")
    assert sizes["appended", True] < 0.6 * sizes["appended", False]
    assert sizes["appended", False] < 0.8 * sizes["inline", False]


def test_other_byte_orders_and_views_are_written_right(tmp_path):
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.5]])
    big = np.array([1.5, -2.5, 3.5], dtype=">f8")
    view = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    cells = {"triangle": np.array([[0, 1, 2]])}
    write_vtu(tmp_path / "m.vtu", points, cells, {"big": big, "view": view})
    grid = pyvista.read(tmp_path / "m.vtu")
    np.testing.assert_array_equal(grid["big"], big)
    np.testing.assert_array_equal(grid["view"], view)


def test_no_cells_and_no_data(tmp_path):
    write_vtu(tmp_path / "m.vtu", np.zeros((2, 3)), {})
    assert pyvista.read(tmp_path / "m.vtu").n_points == 2


def test_every_cell_type_of_a_mesh_is_known():
    assert VTK_CELLS.keys() == CELL_TYPES.keys()
    for kind, number in VTK_CELLS.items():
        assert meshio._vtk_common.vtk_to_meshio_type[number] == kind


def test_node_types_have_the_numbers_that_are_read_again():
    cells = {"triangle": np.array([[0, 1, 2]])}
    mesh = Mesh(np.eye(3, 2), cells, np.array([1, 0, 2]), ("outflow", "wall", "normal"))
    assert node_type_array(mesh)["node_type"].tolist() == [6, 5, 0]
    mesh = Mesh(np.eye(3, 2), cells, np.array([1, 0, 1]))
    assert node_type_array(mesh)["node_type"].tolist() == [1, 0, 1]
    mesh = Mesh(np.eye(3, 2), cells, np.array([1, 0, 1]), ("normal", "lid"))
    assert {name: types.tolist() for name, types in node_type_array(mesh).items()} == {
        "own_node_type": [1, 0, 1]
    }


def test_bad_input(tmp_path):
    points, cells = np.zeros((3, 2)), {"triangle": np.array([[0, 1, 2]])}
    file = tmp_path / "m.vtu"
    with pytest.raises(ValueError, match="unknown encoding 'raw'; choose from inline, appended"):
        write_vtu(file, points, cells, encoding="raw")
    with pytest.raises(ValueError, match="unknown cell type 'triangle6'; choose from line, tri"):
        write_vtu(file, points, {"triangle6": np.zeros((1, 6))})
    with pytest.raises(ValueError, match=r"u must be \[3\] or \[3, C\], got \[4\]"):
        write_vtu(file, points, cells, {"u": np.zeros(4)})
    for wrong in (np.array(["a", "b", "c"]), np.zeros(3, complex), np.zeros(3, np.float16)):
        with pytest.raises(ValueError, match="u must hold float32, float64 or whole numbers"):
            write_vtu(file, points, cells, {"u": wrong})
    assert not list(tmp_path.iterdir())
