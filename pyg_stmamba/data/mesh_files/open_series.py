from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pyg_stmamba.data.mesh_files.frame_series import FrameSeries
from pyg_stmamba.data.mesh_files.openfoam_case import OpenFoamCase
from pyg_stmamba.data.mesh_files.pvd_series import read_pvd
from pyg_stmamba.data.mesh_files.pyvista_series import PyvistaSeries
from pyg_stmamba.data.mesh_files.vtu_series import VtuSeries
from pyg_stmamba.data.mesh_files.xdmf_series import XdmfSeries

PathLike = str | os.PathLike[str]


def open_series(paths: PathLike | Sequence[PathLike]) -> list[FrameSeries]:
    r"""Finds out what kind of files simulation results are, and opens each series.

    Args:
        paths (str or Sequence[str]): A PVD or XDMF file, a folder of an OpenFOAM case or its
            :obj:`.foam` file, a VTU file, a pattern of VTU files as :obj:`"out/flow_*.vtu"`, a
            folder of PVD or VTU files, or another file that PyVista reads over time, as EnSight
            and CGNS; or several of these, which hold different fields of the same frames. A list
            of VTU files is one series.

    Raises:
        OSError: If a file is not there.
        ValueError: If the kind of a file is unknown.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found = [path for item in given for path in _found(os.fspath(item))]
    if not found:
        raise ValueError("read_trajectory needs at least one path, got none")
    grids = [path for path in found if path.suffix in (".vtu", ".pvtu")]
    series = [_opened(path) for path in found if path not in grids]
    return [VtuSeries(grids), *series] if grids else series


def _opened(path: Path) -> FrameSeries:
    if path.is_dir() or path.suffix == ".foam" or path.name == "controlDict":
        return OpenFoamCase(path)
    if path.suffix == ".pvd":
        return read_pvd(path)
    if path.suffix in (".xdmf", ".xmf"):
        return XdmfSeries(path)
    return PyvistaSeries(path)


def _found(path: str) -> list[Path]:
    if glob.has_magic(path) and not os.path.exists(path):
        files = sorted(map(Path, glob.glob(path)), key=_in_order)
        if not files:
            raise FileNotFoundError(f"no file is called {path}")
        return files
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no file or folder {path}")
    folder = Path(path)
    if not folder.is_dir() or (folder / "constant").is_dir():
        return [folder]
    for pattern in ("*.pvd", "*.vtu", "*.pvtu"):
        if files := sorted(folder.glob(pattern), key=_in_order):
            return files
    raise ValueError(
        f"the folder {path} is no OpenFOAM case (it has no folder constant) and holds no .pvd, "
        f".vtu or .pvtu files"
    )


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Numbers in names count as numbers, so that flow_10 comes after flow_9."""
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))
    ]
