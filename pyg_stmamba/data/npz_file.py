from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from pyg_stmamba.data.positions import knn_graph
from pyg_stmamba.data.temporal_graph import TemporalGraph
from pyg_stmamba.data.whole_file import written_whole

NPZ_KEYS = (
    "values",
    "mask",
    "timestamps",
    "edge_index",
    "edge_weight",
    "adjacency",
    "positions",
    "node_ids",
    "channels",
    "units",
    "null_value",
    "name",
)


def load_npz(
    path: str | os.PathLike[str],
    *,
    neighbors: int = 8,
    metric: str = "euclidean",
    null_value: float | None = None,
    gaps: str = "fill",
) -> TemporalGraph:
    r"""Reads one's own data from one :obj:`.npz` file.

    ==================================  ==========================================================
    key                                 what
    ==================================  ==========================================================
    :obj:`values`                       :math:`[T, N]` or :math:`[T, N, C]`; required
    :obj:`edge_index`                   :math:`[2, E]`, source to target
    :obj:`edge_weight`                  :math:`[E]` or :math:`[E, D]`, with :obj:`edge_index`
    :obj:`adjacency`                    :math:`[N, N]`, :obj:`adjacency[target, source]`, instead
    :obj:`positions`                    :math:`[N, P]`; without edges, each node is joined to its
                                        nearest ones
    :obj:`timestamps`                   :math:`[T]`: datetime64, ISO strings or seconds since 1970
    :obj:`mask`                         boolean, :obj:`True` = observed
    :obj:`node_ids`                     :math:`N` names
    :obj:`channels`, :obj:`units`       :math:`C` names
    :obj:`null_value`, :obj:`name`      the value that means missing; the name of the data
    ==================================  ==========================================================

    NaN in :obj:`values` means missing where the file has no :obj:`mask`.

    Args:
        path (str): The file.
        neighbors (int): Nearest nodes to join where there are positions but no edges.
            Their edges weigh :math:`\exp(-(d/\bar d)^2)` with the mean distance
            :math:`\bar d`. (default: :obj:`8`)
        metric (str): Of the positions: :obj:`"euclidean"`, or :obj:`"great-circle"` for latitude
            and longitude in degrees. (default: :obj:`"euclidean"`)
        null_value (float, optional): In place of the one in the file. (default: :obj:`None`)
        gaps (str): See :meth:`TemporalGraph.from_arrays`. (default: :obj:`"fill"`)

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds objects (which could run code), has unknown
            keys or none named :obj:`values`, or its parts do not fit each other.
    """
    arrays = _read_npz(Path(path))
    unknown = sorted(set(arrays) - set(NPZ_KEYS))
    if unknown or "values" not in arrays:
        problem = "no key 'values'" if "values" not in arrays else f"unknown key(s) {unknown}"
        raise ValueError(
            f"{path}: {problem}; the file has {sorted(arrays)}, possible are {list(NPZ_KEYS)}"
        )
    for key in ("node_ids", "channels", "units"):
        if key in arrays:
            arrays[key] = np.atleast_1d(arrays[key]).tolist()
    if null_value is None and "null_value" in arrays:
        null_value = float(arrays["null_value"])
    arrays["name"] = str(arrays["name"]) if "name" in arrays else Path(path).stem
    arrays.pop("null_value", None)
    if "mask" not in arrays and arrays["values"].dtype.kind == "f":
        arrays["mask"] = ~np.isnan(arrays["values"])
    try:
        if "positions" in arrays and not {"edge_index", "adjacency"} & set(arrays):
            arrays["edge_index"], arrays["edge_weight"] = _nearest(
                arrays["positions"], neighbors, metric
            )
        return TemporalGraph.from_arrays(**arrays, null_value=null_value, gaps=gaps)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def save_npz(graph: TemporalGraph, path: str | os.PathLike[str]) -> None:
    r"""Writes a graph so that :func:`load_npz` reads it back.

    The file gets its name only when it is whole.

    Args:
        graph (TemporalGraph): The graph.
        path (str): The file.
    """
    arrays: dict[str, Any] = {
        "values": graph.values.transpose(0, 1).cpu().numpy(),
        "mask": graph.mask.transpose(0, 1).cpu().numpy(),
        "edge_index": graph.edge_index.cpu().numpy(),
        "node_ids": np.array(graph.node_id),
        "channels": np.array(graph.channel_names),
        "units": np.array(graph.units),
        "name": np.array(graph.name),
    }
    if graph.edge_attr is not None:
        arrays["edge_weight"] = graph.edge_attr.cpu().numpy()
    if graph.pos is not None:
        arrays["positions"] = graph.pos.cpu().numpy()
    if graph.timestamps is not None:
        arrays["timestamps"] = graph.timestamps[0].cpu().numpy()
    if graph.null_value is not None:
        arrays["null_value"] = np.array(graph.null_value)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _read_npz(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("it holds a single array; save it with numpy.savez")
            return {key: arrays[key] for key in arrays.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as an .npz file of plain arrays: {error}. It is damaged, cut "
            "off, or holds Python objects, which are refused because they can run code"
        ) from error


def _nearest(positions: np.ndarray, neighbors: int, metric: str) -> tuple[Any, Any]:
    if len(positions) < 2:
        return np.zeros((2, 0), dtype=np.int64), None
    edges, distance = knn_graph(positions, min(neighbors, len(positions) - 1), metric=metric)
    scale = float(distance.mean()) or 1.0
    return edges, (-(distance / scale).square()).exp()
