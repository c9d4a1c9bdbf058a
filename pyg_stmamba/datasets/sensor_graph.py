import csv
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from pyg_stmamba.data import from_adjacency
from pyg_stmamba.datasets.restricted_pickle import load_pickle


def read_sensor_graph(path: str | Path, sensors: Sequence[str]) -> tuple[Tensor, Tensor]:
    r"""Reads a pickled sensor graph of DCRNN, restricted to some sensors.

    The pickle holds a list of sensor ids, a dict from id to position, and the
    weights :math:`W` with :math:`W_{ij} = \exp(-d_{ij}^2 / \sigma^2)` for the
    road distance from sensor :math:`i` to sensor :math:`j`, where that is at
    least 0.1, and 0 elsewhere. So rows are sources and columns are targets. The
    diagonal is left out: layers add self loops on their own.

    Args:
        path: The pickle.
        sensors: Sensor ids, in the order of the nodes.

    Returns:
        :obj:`edge_index` :math:`[2, E]`, source to target, and weights :math:`[E]`.

    Raises:
        ValueError: If the pickle is damaged or malicious, or lacks a sensor.
    """
    content = load_pickle(path)
    if not isinstance(content, (list, tuple)) or len(content) != 3:
        raise ValueError(f"{path}: expected [sensor ids, positions, weights], got {type(content)}")
    ids, _, weights = content
    if (
        not isinstance(weights, np.ndarray)
        or weights.shape != (len(ids), len(ids))
        or weights.dtype.kind != "f"
        or not np.isfinite(weights).all()
    ):
        raise ValueError(
            f"{path}: expected finite weights of shape {(len(ids), len(ids))}, got "
            f"{getattr(weights, 'shape', None)} of {getattr(weights, 'dtype', type(weights))}"
        )
    rows = positions_of(sensors, [str(i) for i in ids], path)
    return from_adjacency(weights[np.ix_(rows, rows)], source_first=True, self_loops=False)


def read_locations(
    path: str | Path, sensors: Sequence[str], names: Sequence[str] | None = None
) -> np.ndarray:
    r"""Reads latitude and longitude of some sensors from a table.

    Args:
        path: The csv file.
        sensors: Sensor ids, in the order of the nodes.
        names: Column names if the file has no header; they include
            :obj:`sensor_id`, :obj:`latitude`, :obj:`longitude`
            (default: :obj:`None`).

    Returns:
        Positions :math:`[N, 2]` in degrees.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, fieldnames=names))
    try:
        found = [str(row["sensor_id"]) for row in rows]
        positions = np.array(
            [(float(row["latitude"]), float(row["longitude"])) for row in rows], dtype=np.float64
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected the columns sensor_id, latitude, longitude ({error!r})"
        ) from error
    return positions[positions_of(sensors, found, path)]


def positions_of(wanted: Sequence[str], known: Sequence[str], path: str | Path) -> np.ndarray:
    r"""Where each wanted id stands among the known ones, which :obj:`path` holds."""
    position = {name: i for i, name in enumerate(known)}
    if missing := [name for name in wanted if name not in position]:
        raise ValueError(
            f"{path} knows nothing of {len(missing)} of {len(wanted)} sensors, such as "
            f"{', '.join(missing[:5])}; it has {', '.join(known[:5])} and so on"
        )
    return np.array([position[name] for name in wanted], dtype=np.int64)


def heard_nodes(mask: np.ndarray, sensors: Sequence[str], source: str) -> np.ndarray:
    r"""The nodes with at least one value; a warning names the others.

    Args:
        mask: Where values are observed, :math:`[T, N, ...]`.
        sensors: Sensor ids :math:`[N]`.
        source: Name of the data set, for the warning.
    """
    heard = np.asarray(mask.reshape(len(mask), mask.shape[1], -1).any(axis=(0, 2)))
    if not heard.all():
        silent = [sensors[node] for node in np.flatnonzero(~heard).tolist()]
        warnings.warn(
            f"{source}: left out {len(silent)} of {len(sensors)} sensors without any value: "
            f"{', '.join(silent[:5])}{', ...' if len(silent) > 5 else ''}",
            stacklevel=2,
        )
    return np.flatnonzero(heard)
