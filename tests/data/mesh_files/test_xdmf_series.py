import pickle
from itertools import pairwise

import numpy as np
import pytest

from pyg_stmamba.data.mesh_files.xdmf_series import XdmfSeries, cells_of

h5py = pytest.importorskip("h5py")
meshio = pytest.importorskip("meshio")
pyvista = pytest.importorskip("pyvista")

POINTS = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]])
CELLS = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
TIMES = [0.0, 0.25, 1.5]
SPEED = np.random.default_rng(0).normal(size=(3, 5, 1))
FLOW = np.random.default_rng(1).normal(size=(3, 5, 3))

HEAD = (
    '<?xml version="1.0"?>\n<!DOCTYPE Xdmf SYSTEM "Xdmf.dtd" []>\n'
    '<Xdmf Version="3.0" xmlns:xi="http://www.w3.org/2001/XInclude"><Domain>'
)
TAIL = "</Domain></Xdmf>"
MESH = (
    '<Topology TopologyType="Triangle" NumberOfElements="4" NodesPerElement="3">'
    '<DataItem Dimensions="4 3" NumberType="Int" Precision="8" Format="HDF">d.h5:/mesh/cells'
    '</DataItem></Topology><Geometry GeometryType="XY">'
    '<DataItem Dimensions="5 2" Format="HDF" Precision="8">d.h5:/mesh/points</DataItem></Geometry>'
)
ALONE = f'<Grid Name="mesh" GridType="Uniform">{MESH}</Grid>'
PARTS = "*[self::Topology or self::Geometry]"


def attribute(name, frame, kind="Scalar", width=1):
    return (
        f'<Attribute Name="{name}" AttributeType="{kind}" Center="Node">'
        f'<DataItem Dimensions="5 {width}" Format="HDF" Precision="8">'
        f"d.h5:/{name}/{frame}</DataItem>"
        "</Attribute>"
    )


def grid(frame, name="speed", mesh=MESH, time=True, **kind):
    stamp = f'<Time Value="{TIMES[frame]}"/>' if time else ""
    values = attribute(name, frame, **kind)
    return f'<Grid Name="{name}" GridType="Uniform">{mesh}{stamp}{values}</Grid>'


def collection(grids, extra="", name="TimeSeries"):
    return (
        f'<Grid Name="{name}" GridType="Collection" CollectionType="Temporal">{extra}'
        f"{''.join(grids)}</Grid>"
    )


def pointer(path):
    return f'<xi:include xpointer="xpointer({path}/{PARTS})"/>'.replace(
        '="mesh"', "=&quot;mesh&quot;"
    )


DOLFINX = pointer("/Xdmf/Domain/Grid[@GridType='Uniform'][1]")
VECTOR = {"kind": "Vector", "width": 3}
LIST = '<Time TimeType="List"><DataItem Dimensions="3" Precision="8">0 0.25 1.5</DataItem></Time>'
SLAB = '<Time TimeType="HyperSlab"><DataItem Dimensions="3">0.5 0.25 3</DataItem></Time>'

# Layouts of a file over time, and which fields and times it holds.
LAYOUTS = {
    "fenics, each frame with the mesh": (collection(grid(i) for i in range(3)), "s", TIMES),
    "fenics, pointing to the first frame": (
        collection(
            grid(i, mesh=pointer('//Grid[@Name="TimeSeries"]/Grid[1]') if i else MESH)
            for i in range(3)
        ).replace('@Name="TimeSeries"', "@Name=&quot;TimeSeries&quot;"),
        "s",
        TIMES,
    ),
    "dolfinx, one function": (
        ALONE + collection(grid(i, mesh=DOLFINX) for i in range(3)),
        "s",
        TIMES,
    ),
    "dolfinx, two functions": (
        ALONE
        + collection([grid(i, mesh=DOLFINX) for i in range(3)], name="speed")
        + collection([grid(i, "flow", DOLFINX, **VECTOR) for i in range(3)], name="flow"),
        "sf",
        TIMES,
    ),
    "meshio, the mesh at the end": (
        collection(grid(i, mesh=pointer('//Grid[@Name="mesh"]')) for i in range(3)) + ALONE,
        "s",
        TIMES,
    ),
    "a single grid with a time": (grid(1), "s", [0.25]),
    "a single grid without a time": (grid(0, time=False), "s", [0.0]),
    "single grids with times": (grid(0) + grid(1), "s", TIMES[:2]),
    "frames out of order": (collection([grid(2), grid(0), grid(1)]), "s", TIMES),
    "times of the collection in a list": (
        collection([grid(i, time=False) for i in range(3)], LIST),
        "s",
        TIMES,
    ),
    "times of the collection by a step": (
        collection([grid(i, time=False) for i in range(3)], SLAB),
        "s",
        [0.5, 0.75, 1.0],
    ),
    "no times": (collection(grid(i, time=False) for i in range(3)), "s", [0, 1, 2]),
}


@pytest.fixture
def opened(tmp_path):
    """Writes the text of an XDMF file and opens it."""
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["mesh/cells"], file["mesh/points"] = CELLS, POINTS
        for frame in range(3):
            file[f"speed/{frame}"], file[f"flow/{frame}"] = SPEED[frame], FLOW[frame]

    def open_text(text):
        (tmp_path / "d.xdmf").write_text(HEAD + text + TAIL)
        return XdmfSeries(tmp_path / "d.xdmf")

    return open_text


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(opened, layout):
    text, names, times = LAYOUTS[layout]
    series = pickle.loads(pickle.dumps(opened(text)))
    assert series.times.tolist() == times
    assert series.name == "d"
    assert all(one < two for one, two in pairwise(series.times))
    for frame in range(len(times)):
        snapshot = series.read(frame)
        np.testing.assert_array_equal(snapshot.points, POINTS)
        np.testing.assert_array_equal(snapshot.cells["triangle"], CELLS)
        expected = {"s": ("speed", SPEED), "f": ("flow", FLOW)}
        assert set(snapshot.fields) == {expected[letter][0] for letter in names}
        # The only layout that begins elsewhere is the single grid at the second time.
        number = TIMES.index(0.25) if times == [0.25] else frame
        for letter in names:
            name, values = expected[letter]
            np.testing.assert_array_equal(snapshot.fields[name], values[number])


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "ingle" not in name][:3])
def test_meshio_agrees(opened, layout):
    series = opened(LAYOUTS[layout][0])
    with meshio.xdmf.TimeSeriesReader(series.path) as reader:
        reader.read_points_cells()
        for frame in range(3):
            time, values, _ = reader.read_data(frame)
            assert time == series.times[frame]
            np.testing.assert_array_equal(series.read(frame).fields["speed"], values["speed"])


@pytest.mark.parametrize(
    "layout", ["fenics, each frame with the mesh", "a single grid with a time"]
)
def test_pyvista_agrees(opened, layout):
    series = opened(LAYOUTS[layout][0])
    reader = pyvista.get_reader(series.path)
    assert reader.time_values == series.times.tolist()
    for frame, time in enumerate(series.times):
        reader.set_active_time_value(time)
        values = series.read(frame).fields["speed"][:, 0]
        np.testing.assert_array_equal(reader.read()["speed"], values)


def test_what_meshio_writes(tmp_path, monkeypatch):
    # It writes its HDF5 file into the working folder.
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for form in ("HDF", "XML"):
        values = generator.normal(size=(3, 5, 2))
        file = tmp_path / f"{form}.xdmf"
        with meshio.xdmf.TimeSeriesWriter(file.name, data_format=form) as writer:
            writer.write_points_cells(POINTS, [("triangle", CELLS)])
            for frame, time in enumerate(TIMES):
                writer.write_data(
                    time,
                    point_data={"flow": values[frame]},
                    cell_data={"k": [np.full(4, frame + 0.5)]},
                )
        series = XdmfSeries(file)
        assert series.times.tolist() == TIMES
        for frame in range(3):
            snapshot = series.read(frame)
            np.testing.assert_array_equal(snapshot.points[:, :2], POINTS)
            np.testing.assert_array_equal(snapshot.cells["triangle"], CELLS)
            np.testing.assert_array_equal(snapshot.fields["flow"], values[frame])
            np.testing.assert_array_equal(snapshot.fields["k"], np.full((5, 1), frame + 0.5))


def test_the_mesh_is_read_once_if_all_frames_share_it(opened, monkeypatch):
    from pyg_stmamba.data.mesh_files import xdmf_series

    series = opened(LAYOUTS["dolfinx, one function"][0])
    read, seen = xdmf_series.read_item, []
    monkeypatch.setattr(
        xdmf_series, "read_item", lambda item, path: seen.append(item.text) or read(item, path)
    )
    for frame in range(3):
        series.read(frame)
    assert seen.count("d.h5:/mesh/cells") == seen.count("d.h5:/mesh/points") == 1


def test_frames_can_have_meshes_of_their_own(opened, tmp_path):
    with h5py.File(tmp_path / "d.h5", "a") as file:
        file["moved/points"] = POINTS + 1
    moved = MESH.replace("d.h5:/mesh/points", "d.h5:/moved/points")
    series = opened(collection([grid(0), grid(1, mesh=moved), grid(2)]))
    for frame, shift in [(0, 0), (1, 1), (2, 0)]:
        np.testing.assert_array_equal(series.read(frame).points, POINTS + shift)


@pytest.mark.parametrize("kind", ["quad", "tetra", "wedge", "hexahedron", "pyramid"])
def test_other_cells_as_meshio_writes_them(lattice, tmp_path, kind):
    mesh = lattice(kind, size=2)
    file = tmp_path / "m.xdmf"
    meshio.Mesh(mesh.pos, {kind: mesh.cells[kind]}, {"p": mesh.pos[:, 0]}).write(
        file, data_format="XML"
    )
    snapshot = XdmfSeries(file).read(0)
    np.testing.assert_array_equal(snapshot.cells[kind], mesh.cells[kind])
    np.testing.assert_array_equal(snapshot.fields["p"], mesh.pos[:, 0])


def test_mixed_cells(tmp_path):
    numbers = np.array([2, 2, 0, 1, 4, 1, 2, 4, 5, 0, 1, 4, 3, 1, 1, 0, 4, 0, 1, 2])
    cells = cells_of("Mixed", numbers, tmp_path)
    assert {kind: rows.tolist() for kind, rows in cells.items()} == {
        "triangle": [[1, 2, 4], [0, 1, 2]],
        "quad": [[0, 1, 4, 3]],
    }
    with pytest.raises(ValueError, match="ends within a cell"):
        cells_of("Mixed", np.array([4, 1, 2]), tmp_path)
    with pytest.raises(ValueError, match="cell of the unknown type 77 in a mixed mesh"):
        cells_of("Mixed", np.array([77, 1, 2]), tmp_path)
    with pytest.raises(ValueError, match="cells of type 'Blob'; what can be read is Mixed, tri"):
        cells_of("Blob", np.array([1, 2]), tmp_path)


OTHER_TIMES = ALONE + LAYOUTS["no times"][0] + collection([grid(0, "flow", **VECTOR)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<Grid", "is not an XDMF file: not well-formed"),
        ("", "holds no grid"),
        (collection([]), "holds no grid"),
        (collection([grid(0)]).replace("Temporal", "Spatial"), "has a Spatial collection, a mesh"),
        (ALONE + collection([grid(0, mesh=pointer("//Grid[9]"))]), "points to a grid that is not"),
        (collection([grid(0, mesh=pointer("//Grid[!]"))]), "points to a grid that is not there"),
        (grid(0).replace("0.0", "soon"), "the time 'soon', which is no number"),
        (OTHER_TIMES, "fields at different times: 1 here, 3 there"),
        (collection([grid(0)], LIST), "states 3 times for 1 grids"),
        (
            grid(0).replace("<Attribute", '<Attribute ItemType="FiniteElementFunction"'),
            "checkpoint",
        ),
    ],
)
def test_bad_files(opened, text, message):
    with pytest.raises(ValueError, match=message):
        opened(text)


def test_missing_parts(opened, tmp_path):
    series = opened(collection([grid(0, mesh="")]))
    with pytest.raises(ValueError, match=r"has no mesh for t = 0 of d.xdmf"):
        series.read(0)
    series = opened(LAYOUTS["no times"][0])
    (tmp_path / "d.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"d.h5, which is not there"):
        series.read(0)
    with pytest.raises(FileNotFoundError):
        XdmfSeries(tmp_path / "gone.xdmf")
    (tmp_path / "d.xdmf").write_text("<VTKFile/>")
    with pytest.raises(ValueError, match="is not an XDMF file: its first element is VTKFile"):
        XdmfSeries(tmp_path / "d.xdmf")
