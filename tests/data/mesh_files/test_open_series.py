import numpy as np
import pytest

from pyg_stmamba.data.mesh_files.open_series import open_series
from pyg_stmamba.data.mesh_files.pvd_series import write_pvd
from pyg_stmamba.data.mesh_files.vtu_series import VtuSeries
from pyg_stmamba.data.mesh_files.xdmf_file import write_xdmf
from pyg_stmamba.data.mesh_files.xdmf_series import XdmfSeries


@pytest.fixture
def results(random_trajectory, tmp_path):
    trajectory = random_trajectory(num_frames=12)
    write_pvd(tmp_path / "flow.pvd", trajectory)
    write_xdmf(tmp_path / "flow.xdmf", trajectory, data="binary")
    return tmp_path


def numbers(series):
    return [int(file.stem.split("_")[-1]) for file in series.files]


def test_files_by_their_suffix(results):
    (pvd,) = open_series(results / "flow.pvd")
    assert isinstance(pvd, VtuSeries)
    (xdmf,) = open_series(str(results / "flow.xdmf"))
    assert isinstance(xdmf, XdmfSeries)
    (results / "flow.xdmf").rename(results / "flow.xmf")
    assert isinstance(open_series(results / "flow.xmf")[0], XdmfSeries)
    both = open_series([results / "flow.pvd", results / "flow.xmf"])
    assert [type(one) for one in both] == [VtuSeries, XdmfSeries]


def test_vtu_files_are_one_series_in_the_order_of_their_numbers(results):
    folder = results / "flow"
    for file in folder.iterdir():
        file.rename(folder / f"out_{int(file.stem[-6:])}.vtu")
    for paths in (folder / "out_*.vtu", folder, str(folder)):
        (series,) = open_series(paths)
        assert numbers(series) == list(range(12))
        assert series.name == "out"
        assert series.times.tolist() == list(range(12))
    (series,) = open_series([folder / "out_3.vtu", folder / "out_1.vtu"])
    assert numbers(series) == [3, 1]
    (series,) = open_series(folder / "out_7.vtu")
    assert numbers(series) == [7]


def test_a_folder_of_collections(results):
    (series,) = open_series(results)
    assert series.name == "flow"
    np.testing.assert_array_equal(numbers(series), np.arange(12))
    (results / "other.pvd").write_text((results / "flow.pvd").read_text())
    assert [one.name for one in open_series(results)] == ["flow", "other"]


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match="at least one path, got none"):
        open_series([])
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*gone.pvd"):
        open_series(tmp_path / "gone.pvd")
    with pytest.raises(FileNotFoundError, match=r"no file is called .*gone_\*.vtu"):
        open_series(tmp_path / "gone_*.vtu")
    with pytest.raises(
        ValueError, match=r"is no OpenFOAM case .* and holds no .pvd, .vtu or .pvtu"
    ):
        open_series(tmp_path)
