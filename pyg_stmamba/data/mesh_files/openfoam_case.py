from __future__ import annotations

import gzip
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from pyg_stmamba.data.mesh_files.cell_arrays import identifier
from pyg_stmamba.data.mesh_files.frame_series import FrameSeries
from pyg_stmamba.data.mesh_files.pyvista_series import import_pyvista, snapshot_of_grid
from pyg_stmamba.data.mesh_files.snapshot import Snapshot


class OpenFoamCase(FrameSeries):
    r"""The time folders of an OpenFOAM case, read through PyVista.

    Values come from cells to nodes as in ParaView: on the border from the faces of the patches,
    and where patches meet, from those of walls. A case of two dimensions, between patches of type
    :obj:`empty`, becomes the plane of one of them. Patches give sets of nodes by their names.

    Args:
        path (str): The folder of the case, or a file in it, as :obj:`case.foam`.

    Raises:
        OSError: If there is no case.
        ValueError: If it was decomposed and not reconstructed, or has no time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        self.folder = path if path.is_dir() else path.parent
        self.patch_types = _patch_types(self.folder)
        self._reader: Any = None
        times = np.array(self._opened().time_values)
        if not len(times):
            raise ValueError(f"{self.folder} has no time folder")
        super().__init__(times, self.folder.resolve().name)

    def read(self, frame: int) -> Snapshot:
        reader = self._opened()
        reader.set_active_time_value(float(self.times[frame]))
        case = reader.read()
        inside, border = case["internalMesh"], case["boundary"]
        whole = snapshot_of_grid(inside)
        tree = cKDTree(whole.points)
        fields = {name: np.array(values) for name, values in whole.fields.items()}
        patches, plane = {}, []
        for place in range(border.n_blocks):
            name, patch = border.get_block_name(place), border[place]
            kind = self.patch_types.get(name)
            if patch is None or not patch.n_points:
                continue
            nodes = tree.query(patch.points)[1]
            if kind == "empty":
                plane += _faces(patch, nodes)
                continue
            patches[identifier(name)] = np.unique(nodes)
            if kind == "wall":
                for key in fields.keys() & patch.point_data.keys():
                    if fields[key].shape[1:] == (3,):
                        fields[key][nodes] = np.asarray(patch.point_data[key])
        snapshot = Snapshot(whole.points, whole.cells, fields, patches)
        return _in_plane(snapshot, plane) if plane else snapshot

    def where(self, frame: int) -> str:
        return f"time {self.times[frame]:g} of {self.folder}"

    def _opened(self) -> Any:
        if self._reader is None:
            reader = import_pyvista().OpenFOAMReader(str(self.folder / "system" / "controlDict"))
            reader.skip_zero_time = False
            reader.cell_to_point_creation = True
            reader.enable_all_patch_arrays()
            self._reader = reader
        return self._reader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}


def _patch_types(folder: Path) -> dict[str, str]:
    """What each patch is, as empty or wall, by its name."""
    for file in (folder / "constant/polyMesh/boundary", folder / "constant/polyMesh/boundary.gz"):
        if file.is_file():
            raw = file.read_bytes()
            text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode("latin-1")
            text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
            entries = re.findall(r"([^\s(){};]+)\s*\{([^{}]*)\}", text.partition("(")[2])
            return {
                name: kind[1]
                for name, body in entries
                if (kind := re.search(r"\btype\s+([^\s;]+)\s*;", body))
            }
    if (folder / "processor0").is_dir():
        raise ValueError(f"the case {folder} is decomposed; run reconstructPar on it first")
    raise FileNotFoundError(f"{folder} is no OpenFOAM case: constant/polyMesh/boundary is missing")


def _faces(patch: Any, nodes: np.ndarray) -> list[np.ndarray]:
    """The faces of a patch by the numbers of their nodes in the whole mesh."""
    faces, place = np.asarray(patch.faces), 0
    rows = []
    while place < len(faces):
        rows.append(nodes[faces[place + 1 : place + 1 + faces[place]]])
        place += 1 + faces[place]
    return rows


def _in_plane(snapshot: Snapshot, faces: list[np.ndarray]) -> Snapshot:
    """The plane of the empty patches that comes first along the axis they stand across."""
    centers = np.array([snapshot.points[face].mean(0) for face in faces])
    spread = [np.ptp(snapshot.points[face], axis=0) for face in faces]
    axis = int(np.argmin(np.max(spread, axis=0)))
    first = centers[:, axis] < centers[:, axis].mean()
    if np.max(spread, axis=0)[axis] > 1e-4 * np.max(spread) or first.sum() * 2 != len(faces):
        raise ValueError(
            "the empty patches of the case are not two planes across x, y or z with the same faces"
        )
    cells: dict[str, list[np.ndarray]] = {"triangle": [], "quad": []}
    for face, chosen in zip(faces, first):
        if chosen and len(face) == 4:
            cells["quad"].append(face)
        elif chosen:
            # Faces of more corners, where cells of different size meet, become a fan.
            cells["triangle"] += [face[[0, i, i + 1]] for i in range(1, len(face) - 1)]
    order = [place for place in range(3) if place != axis] + [axis]
    return Snapshot(
        snapshot.points[:, order],
        {kind: np.array(rows) for kind, rows in cells.items() if rows},
        {
            name: values[:, order] if values.shape[1:] == (3,) else values
            for name, values in snapshot.fields.items()
        },
        snapshot.patches,
    )
