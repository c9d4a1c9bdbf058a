from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FEATURE_TYPES = ("static", "dynamic", "dynamic_varlen")
DTYPES = ("float32", "float64", "int32", "int64", "uint8")


@dataclass(frozen=True)
class DeepMindFeature:
    r"""How the data sets of MeshGraphNets keep one array.

    Args:
        type (str): :obj:`"static"`, the same in all frames; :obj:`"dynamic"`, one in each frame;
            or :obj:`"dynamic_varlen"`, with another number of rows in each frame.
        shape (tuple[int, ...]): The shape, frames first, which a static one has 1 of; -1 for the
            size that is not known.
        dtype (str): The type of its numbers.
    """

    type: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def numpy_dtype(self) -> np.dtype:
        r"""The type of its numbers, in the order of bytes of the files."""
        return np.dtype(self.dtype).newbyteorder("<")

    def shape_of(self, num_bytes: int) -> tuple[int, ...]:
        r"""Returns the shape of an array of so many bytes.

        Raises:
            ValueError: If no such array has so many bytes.
        """
        known = math.prod(size for size in self.shape if size != -1)
        count, rest = divmod(num_bytes, known * self.numpy_dtype.itemsize)
        if rest or (-1 not in self.shape and count != 1):
            raise ValueError(
                f"has {num_bytes} bytes, which are no {self.dtype} array {list(self.shape)}"
            )
        return tuple(count if size == -1 else size for size in self.shape)


@dataclass(frozen=True)
class DeepMindMeta:
    r"""What the file :obj:`meta.json` says of a data set of MeshGraphNets.

    Args:
        features (dict[str, DeepMindFeature]): The arrays of a trajectory by name.
        num_frames (int): The number of frames.
        time_step (float): The time from frame to frame.
        units (dict[str, str]): Units by name, which only files of this package have.
    """

    features: Mapping[str, DeepMindFeature]
    num_frames: int
    time_step: float
    units: Mapping[str, str]


def read_deepmind_meta(folder: str | os.PathLike[str]) -> DeepMindMeta:
    r"""Reads the :obj:`meta.json` of a folder.

    Args:
        folder (str): The folder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If something is missing or wrong in it; the message lists what is there.
    """
    path = Path(folder, "meta.json")
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in Path(folder).glob("*"))) or "nothing"
        raise FileNotFoundError(f"no file {path}; the folder has {there}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    for key, kind in (("features", dict), ("trajectory_length", int), ("dt", (int, float))):
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise ValueError(f"{path} has no proper {key!r}; it has {_listed(content)}")
    frames = content["trajectory_length"]
    features = {
        name: _checked_feature(f"{path}: feature {name!r}", feature, frames)
        for name, feature in content["features"].items()
    }
    return DeepMindMeta(features, frames, float(content["dt"]), content.get("units", {}))


def _checked_feature(what: str, feature: Any, num_frames: int) -> DeepMindFeature:
    if not isinstance(feature, dict) or not {"type", "shape", "dtype"} <= feature.keys():
        raise ValueError(f"{what} needs type, shape and dtype; it has {_listed(feature)}")
    kind, shape, dtype = feature["type"], feature["shape"], feature["dtype"]
    for value, choices in ((kind, FEATURE_TYPES), (dtype, DTYPES)):
        if value not in choices:
            raise ValueError(f"{what} has the unknown {value!r}; known are {', '.join(choices)}")
    frames = {"static": 1, "dynamic": num_frames}
    right = isinstance(shape, list) and all(isinstance(size, int) for size in shape)
    if kind in frames:
        right = right and len(shape) == 3 and shape[0] == frames[kind]
        proper = f"[{frames[kind]}, -1, channels]"
    else:
        right, proper = right and len(shape) == 2, "[-1, channels]"
    if not right or shape.count(-1) > 1 or any(size < 1 and size != -1 for size in shape):
        raise ValueError(
            f"{what}: the shape of a {kind} one must be {proper} with {num_frames} frames, got "
            f"{shape}"
        )
    return DeepMindFeature(kind, tuple(shape), dtype)


def _listed(content: Any) -> str:
    return ", ".join(content) if isinstance(content, dict) else repr(content)
