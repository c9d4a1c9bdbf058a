import numpy as np
import pytest

from pyg_stmamba.data.mesh_files.vtu_series import VtuSeries

pyvista = pytest.importorskip("pyvista")


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


def written(grid, file):
    grid.save(file)
    return file


def test_parts_of_a_parallel_run_are_joined_where_they_meet(grid, tmp_path):
    left = grid.cell_centers().points[:, 0] < 0.5
    names = []
    for part, chosen in enumerate([left, ~left]):
        names.append(f"flow_{part}.vtu")
        written(grid.extract_cells(chosen), tmp_path / names[-1])
    head, tail = (
        '<?xml version="1.0"?><VTKFile type="PUnstructuredGrid" version="0.1">',
        "</VTKFile>",
    )
    (tmp_path / "flow.pvtu").write_text(
        f'{head}<PUnstructuredGrid GhostLevel="0"><PPointData>'
        '<PDataArray type="Float64" Name="velocity" NumberOfComponents="3"/></PPointData>'
        '<PPoints><PDataArray type="Float64" NumberOfComponents="3"/></PPoints>'
        f"{''.join(f'<Piece Source={chr(34)}{name}{chr(34)}/>' for name in names)}"
        f"</PUnstructuredGrid>{tail}"
    )
    snapshot = VtuSeries([tmp_path / "flow.pvtu"]).read(0)
    assert len(snapshot.points) == grid.n_points
    assert len(snapshot.cells["triangle"]) == grid.n_cells

    def corners(points, cells, values):
        rows = np.concatenate([points[cells], values[cells]], axis=2)
        return np.array(sorted(tuple(sorted(map(tuple, row))) for row in rows.tolist()))

    np.testing.assert_array_equal(
        corners(snapshot.points, snapshot.cells["triangle"], snapshot.fields["velocity"]),
        corners(np.asarray(grid.points), grid.cells_dict[5], np.asarray(grid["velocity"])),
    )


def test_a_series_has_times_and_a_name(grid, tmp_path):
    files = [written(grid, tmp_path / f"flow_{frame:03d}.vtu") for frame in range(3)]
    series = VtuSeries(files)
    assert series.times.tolist() == [0, 1, 2]
    assert series.name == "flow"
    assert series.where(2) == "flow_002.vtu"
    assert VtuSeries(files, [0.5, 1, 1.5], "other").times.tolist() == [0.5, 1, 1.5]


def test_bad_input(grid, tmp_path):
    with pytest.raises(ValueError, match="at least one file, got none"):
        VtuSeries([])
    file = written(grid, tmp_path / "m.vtu")
    with pytest.raises(FileNotFoundError, match=r"2 of 3 files .* the first is .*gone_1.vtu"):
        VtuSeries([file, tmp_path / "gone_1.vtu", tmp_path / "gone_2.vtu"])
