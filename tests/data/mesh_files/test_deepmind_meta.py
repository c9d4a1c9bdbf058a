import json

import numpy as np
import pytest

from pyg_stmamba.data.mesh_files.deepmind_meta import DeepMindFeature, read_deepmind_meta


def meta_json(folder, **changes):
    """The file of the published data set cylinder_flow, with changes; None leaves out."""
    content = {
        "simulator": "comsol",
        "dt": 0.01,
        "collision_radius": None,
        "features": {
            "cells": {"type": "static", "shape": [1, -1, 3], "dtype": "int32"},
            "mesh_pos": {"type": "static", "shape": [1, -1, 2], "dtype": "float32"},
            "node_type": {"type": "static", "shape": [1, -1, 1], "dtype": "int32"},
            "velocity": {"type": "dynamic", "shape": [600, -1, 2], "dtype": "float32"},
            "pressure": {"type": "dynamic", "shape": [600, -1, 1], "dtype": "float32"},
        },
        "field_names": ["cells", "mesh_pos", "node_type", "velocity", "pressure"],
        "trajectory_length": 600,
    }
    content |= changes
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "meta.json").write_text(json.dumps(content))
    return folder


def test_the_published_file(tmp_path):
    meta = read_deepmind_meta(meta_json(tmp_path))
    assert (meta.num_frames, meta.time_step, meta.units) == (600, 0.01, {})
    assert list(meta.features) == ["cells", "mesh_pos", "node_type", "velocity", "pressure"]
    assert meta.features["velocity"] == DeepMindFeature("dynamic", (600, -1, 2), "float32")
    assert meta.features["cells"].numpy_dtype == np.dtype("<i4")


def test_the_shape_follows_from_the_number_of_bytes():
    velocity = DeepMindFeature("dynamic", (600, -1, 2), "float32")
    assert velocity.shape_of(600 * 1885 * 2 * 4) == (600, 1885, 2)
    assert velocity.shape_of(0) == (600, 0, 2)
    fixed = DeepMindFeature("static", (1, 1, 1), "float64")
    assert fixed.shape_of(8) == (1, 1, 1)
    assert DeepMindFeature("dynamic_varlen", (-1, 3), "int32").shape_of(24) == (2, 3)
    for feature, size in ((velocity, 600 * 8 + 4), (fixed, 16), (fixed, 0)):
        with pytest.raises(
            ValueError, match=rf"has {size} bytes, which are no {feature.dtype} arr"
        ):
            feature.shape_of(size)


def feature(**changes):
    return {"type": "dynamic", "shape": [600, -1, 2], "dtype": "float32"} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dt": None}, "has no proper 'dt'; it has simulator, features, field_names, trajectory"),
        ({"dt": "fast"}, "has no proper 'dt'"),
        ({"features": None}, "has no proper 'features'; it has simulator"),
        ({"trajectory_length": None}, "has no proper 'trajectory_length'"),
        (
            {"trajectory_length": 599},
            r"'velocity': the shape of a dynamic one must be \[599, -1, ch",
        ),
        ({"features": {"u": 3}}, "feature 'u' needs type, shape and dtype; it has 3"),
        ({"features": {"u": {"type": "static"}}}, "needs type, shape and dtype; it has type"),
        (
            {"features": {"u": feature(type="moving")}},
            "unknown 'moving'; known are static, dynamic",
        ),
        ({"features": {"u": feature(dtype="string")}}, "unknown 'string'; known are float32, flo"),
        ({"features": {"u": feature(type="static")}}, r"static one must be \[1, -1, channels\]"),
        ({"features": {"u": feature(shape=[600, 2])}}, r"\[600, -1, channels\].* got \[600, 2\]"),
        ({"features": {"u": feature(shape=[600, -1, -1])}}, r"got \[600, -1, -1\]"),
        ({"features": {"u": feature(shape=[600, -1, 0])}}, r"got \[600, -1, 0\]"),
        ({"features": {"u": feature(shape=[600, -1, 2.5])}}, r"got \[600, -1, 2.5\]"),
        ({"features": {"u": feature(shape="wide")}}, "got wide"),
        ({"features": {"u": feature(type="dynamic_varlen")}}, r"must be \[-1, channels\]"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"meta.json.*{message}"):
        read_deepmind_meta(meta_json(tmp_path, **changes))


def test_no_file_or_no_json(tmp_path):
    (tmp_path / "train.tfrecord").touch()
    with pytest.raises(FileNotFoundError, match=r"no file .*meta\.json; the folder has train\.tfr"):
        read_deepmind_meta(tmp_path)
    for text in ("{", "\xff"):
        (tmp_path / "meta.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r"meta\.json is not JSON"):
            read_deepmind_meta(tmp_path)
    (tmp_path / "meta.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"no proper 'features'; it has \[1\]"):
        read_deepmind_meta(tmp_path)
