from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

_NANOSECONDS = {"": 1, "[ns]": 1, "[us]": 10**3, "[ms]": 10**6, "[s]": 10**9}


class Frame(NamedTuple):
    r"""A table of numbers over time: :obj:`values` :math:`[T, N]`, :obj:`times`
    :math:`[T]` in nanoseconds since 1970, and :math:`N` column names."""

    values: np.ndarray
    times: np.ndarray
    columns: list[str]


class OpenFrame:
    r"""A pandas table in an open HDF5 file, whose rows are read as they are asked for.

    Args:
        group: The HDF5 group pandas wrote the table into.
        path: Name of the file, for error messages.
    """

    def __init__(self, group: Any, path: str | Path) -> None:
        self._group, self._path = group, path
        kind = _text(group.attrs.get("pandas_type", b""))
        if kind not in ("frame", ""):
            raise ValueError(
                f"{path}: {group.name} holds a pandas {kind}; only a frame in the fixed layout, as "
                "DataFrame.to_hdf writes it by default, can be read"
            )
        self.columns: list[str] = [str(name) for name in self._axis("axis0")]
        self.times: np.ndarray = self._axis("axis1")
        if not _text(self._dataset("axis1").attrs["kind"]).startswith("datetime64"):
            raise ValueError(f"{path}: {group.name}/axis1 is not an index of timestamps")
        position = {name: i for i, name in enumerate(self.columns)}
        self._blocks: list[tuple[Any, np.ndarray, bool]] = []
        for block in range(int(group.attrs.get("nblocks", 1))):
            values = self._dataset(f"block{block}_values")
            items = [position.get(str(name), -1) for name in self._axis(f"block{block}_items")]
            transposed = bool(values.attrs.get("transposed", 0))
            shape = values.shape if transposed else values.shape[::-1]
            if values.dtype.kind not in "fiub" or shape != (len(self.times), len(items)):
                raise ValueError(
                    f"{path}: {values.name} has shape {values.shape} and dtype {values.dtype}; "
                    f"expected numbers for {len(self.times)} rows and {len(items)} columns"
                )
            self._blocks.append((values, np.array(items, dtype=np.int64), transposed))
        held = np.sort(np.concatenate([np.empty(0, np.int64), *(b[1] for b in self._blocks)]))
        if not np.array_equal(held, np.arange(len(self.columns))):
            raise ValueError(f"{path}: the blocks of {group.name} do not hold each column once")

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        r"""The rows from :obj:`start` to :obj:`stop`, all columns, in double precision."""
        stop = len(self.times) if stop is None else min(stop, len(self.times))
        values = np.empty((max(stop - start, 0), len(self.columns)))
        for block, items, transposed in self._blocks:
            try:
                part = block[start:stop] if transposed else block[:, start:stop].T
            except OSError as error:
                raise ValueError(f"{self._path}: {block.name} cannot be read ({error})") from error
            values[:, items] = part
        return values

    def _dataset(self, name: str) -> Any:
        if name not in self._group:
            raise ValueError(
                f"{self._path}: no {name} in {self._group.name}, which is thus not a pandas frame "
                f"in the fixed layout (it has: {', '.join(self._group) or 'nothing'})"
            )
        return self._group[name]

    def _axis(self, name: str) -> np.ndarray:
        data = self._dataset(name)
        kind = _text(data.attrs.get("kind", b""))
        if kind.startswith("datetime64") and kind[10:] in _NANOSECONDS and "tz" not in data.attrs:
            return np.asarray(data[()], dtype=np.int64) * _NANOSECONDS[kind[10:]]
        if kind == "integer":
            return np.asarray(data[()])
        if kind == "string" and data.dtype.kind == "S":
            encoding = _text(self._group.attrs.get("encoding", b"UTF-8")) or "UTF-8"
            return np.char.decode(data[()], encoding)
        raise ValueError(
            f"{self._path}: {data.name} is of kind {kind!r} (dtype {data.dtype}); readable are "
            "text, integers and timestamps without a time zone"
        )


@contextmanager
def open_frame(path: str | Path, key: str | None = None) -> Iterator[OpenFrame]:
    r"""Opens a pandas table stored in HDF5 in the fixed layout, without pandas.

    Args:
        path: The file.
        key: Name of the table; if :obj:`None`, the only one there is
            (default: :obj:`None`).

    Raises:
        ValueError: If the file is truncated, or holds something else; the
            message names the file and the cause.
    """
    h5py = _h5py()
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: truncated, or not an HDF5 file ({error})") from error
    with file:
        tables = list(file) if key is None else [key]
        if len(tables) != 1 or not isinstance(file.get(tables[0]), h5py.Group):
            raise ValueError(
                f"{path}: asked for the table {key or '(the only one)'}; the file has "
                f"{', '.join(file) or 'none'}"
            )
        try:
            frame = OpenFrame(file[tables[0]], path)
        except (OSError, KeyError, RuntimeError) as error:
            raise ValueError(f"{path}: damaged HDF5 file ({error})") from error
        yield frame


def read_frame(path: str | Path, key: str | None = None) -> Frame:
    r"""Reads a whole pandas table stored in HDF5, see :func:`open_frame`."""
    with open_frame(path, key) as frame:
        return Frame(frame.rows(), frame.times, frame.columns)


def write_frame(
    path: str | Path,
    values: np.ndarray,
    times: np.ndarray,
    columns: Sequence[str] | Sequence[int],
    key: str = "df",
) -> None:
    r"""Writes a table as pandas does in its fixed HDF5 layout, the same bytes every time.

    Args:
        path: The file.
        values: Numbers :math:`[T, N]`.
        times: Timestamps :math:`[T]`, nanoseconds since 1970.
        columns: Column names :math:`[N]`, text or integers.
        key: Name of the table (default: :obj:`"df"`).
    """
    values, times = np.asarray(values), np.asarray(times, dtype=np.int64)
    if values.shape != (len(times), len(columns)):
        raise ValueError(
            f"values of shape {values.shape} for {len(times)} timestamps and {len(columns)} columns"
        )
    whole = all(isinstance(name, (int, np.integer)) for name in columns)
    names = np.array(columns, dtype=np.int64) if whole else np.array(columns, dtype=np.bytes_)
    names_kind = "integer" if whole else "string"
    text = np.bytes_
    with _h5py().File(path, "w") as file:
        group = file.create_group(key)
        for name, value in {
            "CLASS": "GROUP",
            "VERSION": "1.0",
            "axis0_variety": "regular",
            "axis1_variety": "regular",
            "block0_items_variety": "regular",
            "encoding": "UTF-8",
            "errors": "strict",
            "pandas_type": "frame",
        }.items():
            group.attrs[name] = text(value)
        group.attrs["nblocks"], group.attrs["ndim"] = np.int64(1), np.int64(2)
        for name, data, kind in (
            ("axis0", names, names_kind),
            ("axis1", times, "datetime64[ns]"),
            ("block0_items", names, names_kind),
            ("block0_values", values, None),
        ):
            dataset = group.create_dataset(name, data=data, track_times=False)
            dataset.attrs["CLASS"], dataset.attrs["VERSION"] = text("CARRAY"), text("1.1")
            dataset.attrs["transposed"] = np.uint8(1)
            if kind is not None:
                dataset.attrs["kind"] = text(kind)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _h5py() -> ModuleType:
    try:
        import h5py
    except Exception as error:
        raise ImportError(
            f"HDF5 files need h5py: pip install pyg-stmamba[train] ({error})"
        ) from error
    return h5py
