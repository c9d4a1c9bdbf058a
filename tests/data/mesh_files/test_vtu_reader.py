import base64

import numpy as np
import pytest

from pyg_stmamba.data.mesh_files.vtu_file import write_vtu
from pyg_stmamba.data.mesh_files.vtu_reader import read_vtu

meshio = pytest.importorskip("meshio")
pyvista = pytest.importorskip("pyvista")
vtk = pytest.importorskip("vtk")


@pytest.fixture
def grid(lattice):
    """A grid of PyVista with values on nodes and cells."""
    mesh = lattice("triangle", size=4)
    points = np.pad(mesh.pos, ((0, 0), (0, 1)))
    grid = pyvista.UnstructuredGrid({5: mesh.cells["triangle"]}, points)
    generator = np.random.default_rng(0)
    grid.point_data["velocity"] = generator.normal(size=(grid.n_points, 3))
    grid.point_data["pressure"] = generator.normal(size=grid.n_points).astype(np.float32)
    grid.cell_data["viscosity"] = generator.normal(size=grid.n_cells)
    grid.cell_data["region"] = np.arange(grid.n_cells) % 2
    return grid


def written(grid, file, mode="Appended", compressor="ZLib", encode=True):
    writer = vtk.vtkXMLUnstructuredGridWriter()
    writer.SetInputData(grid)
    writer.SetFileName(str(file))
    getattr(writer, f"SetDataModeTo{mode}")()
    getattr(writer, f"SetCompressorTypeTo{compressor}")()
    writer.SetEncodeAppendedData(encode)
    writer.Write()
    return file


@pytest.mark.parametrize("compressor", ["None", "ZLib", "LZMA", "LZ4"])
@pytest.mark.parametrize(
    ("mode", "encode"), [("Ascii", True), ("Binary", True), ("Appended", True), ("Appended", False)]
)
def test_reads_what_vtk_writes(grid, tmp_path, mode, compressor, encode):
    snapshot = read_vtu(written(grid, tmp_path / "m.vtu", mode, compressor, encode))
    np.testing.assert_array_equal(snapshot.points, grid.points)
    np.testing.assert_array_equal(snapshot.cells["triangle"], grid.cells_dict[5])
    np.testing.assert_array_equal(snapshot.fields["velocity"], grid["velocity"])
    np.testing.assert_array_equal(np.ravel(snapshot.fields["pressure"]), grid["pressure"])
    expected = grid.cell_data_to_point_data()
    np.testing.assert_allclose(snapshot.fields["viscosity"][:, 0], expected["viscosity"])
    for region in (0, 1):
        nodes = np.unique(grid.cells_dict[5][grid.cell_data["region"] == region])
        np.testing.assert_array_equal(snapshot.patches[f"region_{region}"], nodes)


@pytest.mark.parametrize("kind", ["quad", "tetra", "pyramid", "wedge", "hexahedron"])
def test_reads_what_meshio_and_this_package_write(lattice, tmp_path, kind):
    mesh = lattice(kind, size=2)
    points = np.pad(mesh.pos, ((0, 0), (0, 3 - mesh.dim)))
    values = np.random.default_rng(0).normal(size=mesh.num_nodes)
    write_vtu(tmp_path / "own.vtu", mesh.pos, mesh.cells, {"p": values})
    own = read_vtu(tmp_path / "own.vtu")
    np.testing.assert_array_equal(own.cells[kind], mesh.cells[kind])
    order = [0, 2, 1, 3, 5, 4] if kind == "wedge" else slice(None)
    meshio.Mesh(points, {kind: mesh.cells[kind][:, order]}, {"p": values}).write(
        tmp_path / "theirs.vtu"
    )
    theirs = read_vtu(tmp_path / "theirs.vtu")
    for snapshot in (own, theirs):
        np.testing.assert_array_equal(snapshot.points, points)
        np.testing.assert_array_equal(snapshot.cells[kind], mesh.cells[kind])
        np.testing.assert_array_equal(snapshot.fields["p"].ravel(), values)


def test_several_pieces_in_a_file(grid, tmp_path):
    text = written(grid, tmp_path / "one.vtu", "Ascii", "None").read_text()
    piece = text[text.index("<Piece") : text.index("</Piece>") + len("</Piece>")]
    (tmp_path / "two.vtu").write_text(text.replace(piece, piece + piece))
    snapshot = read_vtu(tmp_path / "two.vtu")
    assert len(snapshot.cells["triangle"]) == 2 * grid.n_cells
    assert len(snapshot.points) == grid.n_points


def test_pieces_are_shifted(lattice, tmp_path):
    head = '<VTKFile type="UnstructuredGrid"><UnstructuredGrid>'
    piece = (
        '<Piece NumberOfPoints="3" NumberOfCells="1"><Points><DataArray type="Float32" '
        'NumberOfComponents="3">{} 0 0 {} 0 0 {} 1 0</DataArray></Points><Cells>'
        '<DataArray type="Int32" Name="connectivity">2 0 1</DataArray>'
        '<DataArray type="Int32" Name="offsets">3</DataArray>'
        '<DataArray type="UInt8" Name="types">5</DataArray></Cells>'
        '<PointData><DataArray type="Float32" Name="p">{} {} {}</DataArray></PointData></Piece>'
    )
    text = head + piece.format(0, 1, 1, 5, 6, 7) + piece.format(2, 3, 3, 8, 9, 10)
    (tmp_path / "m.vtu").write_text(text + "</UnstructuredGrid></VTKFile>")
    snapshot = read_vtu(tmp_path / "m.vtu")
    corners = snapshot.cells["triangle"]
    assert snapshot.points[corners][..., 0].tolist() == [[1, 0, 1], [3, 2, 3]]
    assert snapshot.fields["p"][corners].tolist() == [[7, 5, 6], [10, 8, 9]]


def test_headers_encoded_by_themselves_and_big_endian(tmp_path):
    def encoded(values, dtype):
        raw = np.array(values, dtype).tobytes()
        header = np.array([len(raw)], ">u4").tobytes()
        return base64.b64encode(header).decode() + base64.b64encode(raw).decode()

    arrays = {
        "connectivity": ("Int64", encoded([0, 1, 2], ">i8")),
        "offsets": ("Int32", encoded([3], ">i4")),
        "types": ("UInt8", encoded([5], "u1")),
    }
    cells = "".join(
        f'<DataArray type="{kind}" Name="{name}" format="binary">{text}</DataArray>'
        for name, (kind, text) in arrays.items()
    )
    points = encoded(np.eye(3), ">f8")
    (tmp_path / "m.vtu").write_text(
        '<VTKFile type="UnstructuredGrid" byte_order="BigEndian"><UnstructuredGrid><Piece '
        'NumberOfPoints="3" NumberOfCells="1"><Points><DataArray type="Float64" Name="P" '
        f'NumberOfComponents="3" format="binary">\n  {points}\n</DataArray></Points>'
        f"<Cells>{cells}</Cells></Piece></UnstructuredGrid></VTKFile>"
    )
    snapshot = read_vtu(tmp_path / "m.vtu")
    np.testing.assert_array_equal(snapshot.points, np.eye(3))
    assert snapshot.cells["triangle"].tolist() == [[0, 1, 2]]


def test_raw_arrays_that_meshio_takes_for_one_another(lattice, tmp_path):
    """Its search for the array at an offset finds another one whose offset it has changed."""
    mesh = lattice("triangle", size=6)
    zero = np.zeros((mesh.num_nodes, 1))
    data = {"depth": zero + 1, "kind": np.zeros(mesh.num_nodes, int), "u": np.zeros((49, 3), "f4")}
    data["p"] = np.arange(49, dtype="f4")
    write_vtu(tmp_path / "m.vtu", mesh.pos, mesh.cells, data, encoding="appended")
    snapshot = read_vtu(tmp_path / "m.vtu")
    for name, values in data.items():
        np.testing.assert_array_equal(snapshot.fields[name].reshape(values.shape), values)


def test_broken_files(grid, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone_1.vtu"):
        read_vtu(tmp_path / "gone_1.vtu")
    text = written(grid, tmp_path / "m.vtu", "Ascii", "None").read_text()
    number = f'NumberOfPoints="{grid.n_points}"'
    first = text.index("\n", text.index("pressure")) + 12
    broken = {
        "no element found": "",
        "syntax error": "not XML",
        "of type UnstructuredGrid, got a a of type None": "<a/>",
        "has no Piece": '<VTKFile type="UnstructuredGrid"/>',
        "no element found|mismatched tag|unclosed token": text[: len(text) // 2],
        "holds 25 entries instead of 26": text.replace(number, 'NumberOfPoints="26"'),
        "could not convert|invalid literal": text[:first] + "x" + text[first + 1 :],
        "'connectivity' is missing or unknown": text.replace("connectivity", "conn"),
        "unknown format 'hex'": text.replace('format="ascii"', 'format="hex"'),
        "'zip' is missing or unknown": text.replace("<VTKFile ", '<VTKFile compressor="zip" '),
        "cells name the points 0 to 25, but there are the points 0 to 24": text.replace(
            " 24 ", " 25 "
        ),
    }
    for message, content in broken.items():
        (tmp_path / "broken.vtu").write_text(content)
        with pytest.raises(ValueError, match=f"broken.vtu is not a VTU file .*({message})"):
            read_vtu(tmp_path / "broken.vtu")


@pytest.mark.parametrize("compressor", ["None", "ZLib", "LZMA"])
@pytest.mark.parametrize(("mode", "encode"), [("Binary", True), ("Appended", False)])
def test_files_that_end_early(grid, tmp_path, mode, compressor, encode):
    content = written(grid, tmp_path / "m.vtu", mode, compressor, encode).read_bytes()
    tag = b"<DataArray" if mode == "Binary" else b"<AppendedData"
    start = content.index(b">", content.index(tag))
    place = content.index(b"<" if mode == "Binary" else b"</AppendedData>", start) - 10
    (tmp_path / "m.vtu").write_bytes(content[: place - 20] + content[place:])
    with pytest.raises(ValueError, match=r"m.vtu is not a VTU file that can be read") as error:
        read_vtu(tmp_path / "m.vtu")
    if (mode, compressor) == ("Appended", "None"):
        assert "an array ends after" in str(error.value)
    (tmp_path / "m.vtu").write_bytes(content[:place])
    with pytest.raises(
        ValueError, match=r"ends within the appended data|no element found|unclosed"
    ):
        read_vtu(tmp_path / "m.vtu")
