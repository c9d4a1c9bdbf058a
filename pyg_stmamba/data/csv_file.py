from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pyg_stmamba.data.calendar import as_seconds
from pyg_stmamba.data.graph import from_adjacency, gaussian_kernel_graph
from pyg_stmamba.data.temporal_graph import TemporalGraph

TIMESTAMP_FORMATS = (
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
)
COMPACT_FORMATS = {8: "%Y%m%d", 12: "%Y%m%d%H%M"}
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "-"})
DISTANCE_COLUMNS = ("cost", "distance", "weight")


def load_csv(
    values: str | os.PathLike[str],
    adjacency: str | os.PathLike[str] | None = None,
    distances: str | os.PathLike[str] | None = None,
    *,
    timestamps: bool = True,
    timestamp_format: str | None = None,
    source_first: bool = False,
    sigma: float | None = None,
    threshold: float = 0.1,
    null_value: float | None = None,
    units: str | None = None,
    gaps: str = "fill",
) -> TemporalGraph:
    r"""Reads one's own data from a wide :obj:`.csv` file and a graph from another.

    The values have one row a step and one column a node; the first line names the nodes, the
    first column holds time stamps (ISO, common forms such as 03/01/2012 00:05, or seconds since
    1970). Empty fields, :obj:`nan`, :obj:`NA` and :obj:`null` are missing.

    Args:
        values (str): The file of the values.
        adjacency (str, optional): A file with an :math:`N \times N` matrix of weights, 0 = no
            edge: bare, or with node ids as first line, or as first line and first column (then
            it may hold more nodes, in any order). (default: :obj:`None`)
        distances (str, optional): A file with columns :obj:`from`, :obj:`to` and one of
            :obj:`cost`, :obj:`distance` (road distances, turned into weights by
            :func:`gaussian_kernel_graph`) or :obj:`weight` (taken as it is). Without a header
            the columns are from, to, distance. Rows about other nodes are left out.
            (default: :obj:`None`)
        timestamps (bool): Whether the first column of the values holds time stamps.
            (default: :obj:`True`)
        timestamp_format (str, optional): As for :meth:`datetime.datetime.strptime`.
            (default: :obj:`None`, found from the file)
        source_first (bool): The rows of :obj:`adjacency` are sources, not targets.
            (default: :obj:`False`)
        sigma (float, optional): See :func:`gaussian_kernel_graph`. (default: :obj:`None`)
        threshold (float): See :func:`gaussian_kernel_graph`. (default: :obj:`0.1`)
        null_value (float, optional): A value that means missing, besides empty fields.
            (default: :obj:`None`)
        units (str, optional): Unit of the values. (default: :obj:`None`)
        gaps (str): See :meth:`TemporalGraph.from_arrays`. (default: :obj:`"fill"`)

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a row is too short or long, a field is no number, time stamps cannot be
            read or are ambiguous, or the graph does not fit the nodes.
    """
    if adjacency is not None and distances is not None:
        raise ValueError("pass either adjacency or distances, not both")
    names, stamps, array = _read_values(Path(values), timestamps)
    arrays: dict[str, Any] = {"mask": ~np.isnan(array), "node_ids": names, "units": units}
    if timestamps:
        arrays["timestamps"] = _named(values, _parse_timestamps, stamps, timestamp_format)
    if adjacency is not None:
        matrix = _read_adjacency(Path(adjacency), names)
        arrays["edge_index"], arrays["edge_weight"] = _named(
            adjacency, from_adjacency, matrix, source_first=source_first
        )
    if distances is not None:
        edges, lengths, are_weights = _read_distances(Path(distances), names)
        arrays["edge_index"], arrays["edge_weight"] = (
            (edges, lengths)
            if are_weights
            else _named(
                distances,
                gaussian_kernel_graph,
                edges,
                lengths,
                len(names),
                sigma=sigma,
                threshold=threshold,
            )
        )
    return _named(
        values,
        TemporalGraph.from_arrays,
        array,
        **arrays,
        null_value=null_value,
        name=Path(values).stem,
        gaps=gaps,
    )


def _named(
    path: str | os.PathLike[str], function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    try:
        # A byte order mark, as spreadsheets write it, is no part of the first name.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                if any(field.strip() for field in row):
                    yield reader.line_num, [field.strip() for field in row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a .csv text file: {error}") from error


def _number(field: str) -> float:
    return np.nan if field.lower() in MISSING else float(field)


def _numbers(path: Path, line: int, fields: list[str]) -> np.ndarray:
    try:
        return np.array([_number(field) for field in fields], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}, line {line}: {error}") from None


def _read_values(path: Path, timestamps: bool) -> tuple[list[str], list[str], np.ndarray]:
    rows = _rows(path)
    _, header = next(rows, (0, []))
    first = int(timestamps)
    names = header[first:]
    if not names:
        raise ValueError(f"{path} has no columns of values; its first line must name the nodes")
    stamps, values = [], []
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {line}: {len(row)} fields where the first line has {len(header)}"
            )
        stamps.append(row[0])
        values.append(_numbers(path, line, row[first:]))
    if not values:
        raise ValueError(f"{path} has a first line but no rows of values")
    return names, stamps, np.stack(values)


def _parse_timestamps(stamps: list[str], timestamp_format: str | None) -> np.ndarray:
    if timestamp_format is not None:
        parsed = _parsed(stamps, partial(_strptime, timestamp_format))
        if parsed is None:
            raise ValueError(f"timestamps such as {stamps[0]!r} do not fit {timestamp_format!r}")
        return parsed
    for read in (_compact, int, _iso):
        if (parsed := _parsed(stamps, read)) is not None:
            return parsed
    fitting = {
        form: parsed
        for form in TIMESTAMP_FORMATS
        if (parsed := _parsed(stamps, partial(_strptime, form))) is not None
    }
    if not fitting:
        raise ValueError(
            f"the first column must hold timestamps, got {stamps[0]!r}; pass timestamp_format=... "
            "(as for datetime.strptime), or timestamps=False if all columns are nodes"
        )
    # Day and month are told apart by which reading runs forward.
    forward = {form: p for form, p in fitting.items() if (np.diff(p) > 0).all()} or fitting
    if len({parsed.tobytes() for parsed in forward.values()}) > 1:
        raise ValueError(
            f"timestamps such as {stamps[0]!r} can be read as {sorted(forward)}; pass "
            "timestamp_format=..."
        )
    return next(iter(forward.values()))


def _parsed(stamps: list[str], read: Callable[[str], Any]) -> np.ndarray | None:
    try:
        parsed = [read(stamp) for stamp in stamps]
    except ValueError:
        return None
    return as_seconds(parsed)


def _strptime(form: str, stamp: str) -> datetime:
    return datetime.strptime(stamp, form)


def _compact(stamp: str) -> datetime:
    return datetime.strptime(stamp, COMPACT_FORMATS.get(len(stamp), "%Y%m%d%H%M%S"))


def _iso(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp.replace("Z", ""))


def _read_adjacency(path: Path, names: list[str]) -> np.ndarray:
    rows = list(_rows(path))
    if not rows:
        raise ValueError(f"{path} is empty")
    _, first = rows[0]
    cornered = set(names) <= set(first[1:]) and [row[0] for _, row in rows[1:]] == first[1:]
    titled = cornered or len(rows) == len(first) + 1
    titles = first[int(cornered) :] if titled else names
    body = [_numbers(path, line, row[int(cornered) :]) for line, row in rows[int(titled) :]]
    if any(len(row) != len(body) for row in body) or len(titles) != len(body):
        widths = sorted({len(row) for row in body})
        raise ValueError(
            f"{path} must hold a square matrix for {len(names)} nodes, with or without node ids in "
            f"the first line (and column), got {len(body)} rows of {widths} numbers"
        )
    place = {title: i for i, title in enumerate(titles)}
    absent = [name for name in names if name not in place]
    if absent:
        raise ValueError(f"{path} has no row for node(s) {absent[:10]}; it names {titles[:10]} ...")
    order = [place[name] for name in names]
    return np.stack(body)[np.ix_(order, order)]


def _read_distances(path: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray, bool]:
    rows = list(_rows(path))
    header = [field.lower() for field in rows[0][1]] if rows else []
    if "from" in header or "to" in header:
        column = next((c for c in DISTANCE_COLUMNS if c in header), None)
        if column is None or not {"from", "to"} <= set(header):
            raise ValueError(
                f"{path} needs the columns from, to and one of {list(DISTANCE_COLUMNS)}, got "
                f"{header}"
            )
        places = [header.index(c) for c in ("from", "to", column)]
        rows = rows[1:]
    else:
        column, places = "distance", [0, 1, 2]
    node = {name: i for i, name in enumerate(names)}
    edges, lengths = [], []
    for line, row in rows:
        if len(row) <= max(places):
            raise ValueError(
                f"{path}, line {line}: {len(row)} field(s), expected from, to, {column}"
            )
        source, target, length = (row[p] for p in places)
        if source in node and target in node:
            edges.append((node[source], node[target]))
            lengths.append(_numbers(path, line, [length])[0])
    if not edges:
        raise ValueError(
            f"{path} joins none of the nodes {names[:10]}; its first row is "
            f"{rows[0][1] if rows else 'absent'}"
        )
    return np.array(edges, dtype=np.int64).T, np.array(lengths), column == "weight"
