import numpy as np
import pytest

from pyg_stmamba.data.mesh import NODE_TYPES, Mesh, MeshTrajectory
from pyg_stmamba.data.mesh_files.trajectory_arrays import trajectory_arrays, trajectory_from_arrays

T, N = 4, 5


def plain(**changes):
    """Arrays as somebody else's file may have them."""
    generator = np.random.default_rng(0)
    arrays = {
        "pos": generator.normal(size=(N, 2)),
        "cells": np.array([[0, 1, 2], [2, 3, 4]]),
        "node_type": np.array([0, 4, 5, 6, 0]),
        "velocity": generator.normal(size=(T, N, 2)).astype(np.float32),
        "pressure": generator.normal(size=(T, N)),
        "dt": np.array(0.5),
    }
    arrays |= changes
    return {name: value for name, value in arrays.items() if value is not None}


def renamed(old, new):
    arrays = plain()
    return {new if name == old else name: value for name, value in arrays.items()}


def read(arrays, **options):
    return trajectory_from_arrays(arrays, "run.npz", **options)


def test_there_and_back(random_trajectory, assert_same_trajectory):
    trajectory = random_trajectory()
    assert_same_trajectory(read(trajectory_arrays(trajectory)), trajectory)


def test_what_a_trajectory_need_not_have(assert_same_trajectory):
    for cells in ({}, {"quad": [[0, 1, 2, 3]], "triangle": [[0, 1, 2]]}):
        mesh = Mesh(np.random.default_rng(0).normal(size=(N, 3)), cells)
        trajectory = MeshTrajectory(mesh, {}, [0.5])
        assert_same_trajectory(read(trajectory_arrays(trajectory)), trajectory)


def test_names_that_files_cannot_have(random_trajectory):
    trajectory = random_trajectory()
    for name in ("", "a/b", ".", "..", "a\0b"):
        for group in ("fields", "static", "parameters", "series", "units"):
            other = MeshTrajectory(
                trajectory.mesh,
                trajectory.fields,
                trajectory.times,
                **{group: {name: 0}} if group in ("parameters", "units") else {},
            )
            if group in ("fields", "static", "series"):
                values = {
                    "fields": trajectory.fields["pressure"],
                    "static": trajectory.static["depth"],
                    "series": trajectory.series["drag"],
                }
                getattr(other, group)[name] = values[group]
            with pytest.raises(ValueError, match=f"in {group} cannot be a name in a file"):
                trajectory_arrays(other)


def test_plain_arrays():
    arrays = plain()
    trajectory = read(arrays)
    np.testing.assert_array_equal(trajectory.mesh.pos, arrays["pos"])
    np.testing.assert_array_equal(trajectory.mesh.cells["triangle"], arrays["cells"])
    np.testing.assert_array_equal(trajectory.mesh.node_type, arrays["node_type"])
    assert trajectory.mesh.node_type_names == NODE_TYPES
    np.testing.assert_array_equal(trajectory.times, [0, 0.5, 1, 1.5])
    assert list(trajectory.fields) == ["velocity", "pressure"]
    np.testing.assert_array_equal(trajectory.field("velocity")[1:3], arrays["velocity"][1:3])
    np.testing.assert_array_equal(
        trajectory.field("pressure")[1:3][..., 0], arrays["pressure"][1:3]
    )
    assert trajectory.field("pressure").shape == (T, N, 1)
    assert trajectory.name == ""


@pytest.mark.parametrize(
    ("name", "other"),
    [("pos", "mesh_pos"), ("pos", "pointcloud"), ("cells", "triangles"), ("dt", "time")],
)
def test_other_names_for_the_same(name, other):
    arrays = plain(dt=None, times=np.array([0.0, 1, 2, 4])) if name == "dt" else plain()
    arrays[other] = arrays.pop("times" if name == "dt" else name)
    trajectory = read(arrays)
    assert (trajectory.num_nodes, trajectory.mesh.num_cells, trajectory.num_frames) == (N, 2, T)
    assert list(trajectory.fields) == ["velocity", "pressure"]
    assert trajectory.times[-1] == (4 if name == "dt" else 1.5)


def test_the_proper_name_wins():
    both = plain(mesh_pos=plain()["pos"] + 1)
    np.testing.assert_array_equal(read(both, fields=["velocity"]).mesh.pos, both["pos"])
    with pytest.raises(ValueError, match=r"mesh_pos has the shape \[5, 2\], which is no field"):
        read(both)


def test_names_can_be_said():
    arrays = renamed("velocity", "U") | {"old": plain()["velocity"] + 1}
    trajectory = read(arrays, keys={"velocity": "U"}, fields=["velocity"])
    assert list(trajectory.fields) == ["velocity"]
    np.testing.assert_array_equal(trajectory.field("velocity")[:], arrays["U"])
    moved = renamed("pos", "points")
    np.testing.assert_array_equal(read(moved, keys={"pos": "points"}).mesh.pos, moved["points"])
    # What is asked for wins over what is there under the usual name.
    both = plain(points=plain()["pos"] + 1)
    chosen = read(both, keys={"pos": "points", "velocity": "velocity"}, fields=["velocity"])
    np.testing.assert_array_equal(chosen.mesh.pos, both["points"])
    # A file of ours has fields and their units under the names of the trajectory.
    ours = renamed("velocity", "fields/U") | {"units/U": np.array("m/s")}
    for key in ("U", "fields/U"):
        trajectory = read(ours, keys={"velocity": key}, fields=["velocity"])
        np.testing.assert_array_equal(trajectory.field("velocity")[:], ours["fields/U"])
        assert trajectory.units == {"velocity": "m/s"}
    # Names may change places.
    swapped = read(plain(b=plain()["velocity"] + 1), keys={"velocity": "b", "b": "velocity"})
    np.testing.assert_array_equal(swapped.field("velocity")[:], plain()["velocity"] + 1)
    np.testing.assert_array_equal(swapped.field("b")[:], plain()["velocity"])
    with pytest.raises(ValueError, match=r"run.npz has no U; it has pos, cells, .*dt"):
        read(plain(), keys={"velocity": "U"})


def test_groups():
    arrays = plain(
        **{
            "static/depth": np.ones((N, 1)),
            "parameters/viscosity": np.array(0.1),
            "series/drag": np.arange(T),
            "units/velocity": np.array("m/s"),
            "fields/vorticity": np.ones((T, N, 1)),
            "name": np.array("a run"),
            "node_type_names": np.array(list("abcdefgh")),
        }
    )
    trajectory = read(arrays)
    assert list(trajectory.fields) == ["velocity", "pressure", "vorticity"]
    assert trajectory.static["depth"].shape == (N, 1)
    assert trajectory.parameters == {"viscosity": 0.1}
    assert trajectory.series["drag"].tolist() == [0, 1, 2, 3]
    assert trajectory.units == {"velocity": "m/s"}
    assert trajectory.name == "a run"
    assert trajectory.mesh.node_type_names == tuple("abcdefgh")


@pytest.mark.parametrize(
    ("cells", "dim", "kind"),
    [
        ([[0, 1, 2]], 3, "triangle"),
        ([[0, 1, 2, 3]], 2, "quad"),
        ([[0, 1, 2, 3]], 3, "tetra"),
    ],
)
def test_kinds_of_cells(cells, dim, kind):
    arrays = plain(cells=np.array(cells), pos=np.random.default_rng(0).normal(size=(N, dim)))
    assert list(read(arrays).mesh.cells) == [kind]


def test_arrays_repeated_for_every_frame_are_taken_once():
    arrays = plain()
    for name in ("pos", "cells", "node_type"):
        arrays[name] = np.repeat(arrays[name][None], T, axis=0)
    trajectory = read(arrays)
    np.testing.assert_array_equal(trajectory.mesh.pos, plain()["pos"])
    np.testing.assert_array_equal(trajectory.mesh.cells["triangle"], plain()["cells"])
    np.testing.assert_array_equal(trajectory.mesh.node_type, plain()["node_type"])
    for node_type in (arrays["node_type"][..., None], plain()["node_type"][:, None]):
        again = read(arrays | {"node_type": node_type})
        np.testing.assert_array_equal(again.mesh.node_type, plain()["node_type"])


@pytest.mark.parametrize("name", ["pos", "cells", "node_type"])
def test_a_mesh_that_changes_with_time_is_refused(name):
    moving = np.repeat(plain()[name][None], T, axis=0)
    moving[2, ..., -1] += 1
    with pytest.raises(ValueError, match=f"run.npz: {name} is not in frame 2 what .* EAGLE"):
        read(plain(**{name: moving}))


def test_an_eagle_file_is_refused_because_it_moves():
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"pos is not in frame 1 .* moving meshes, as in EAGLE"):
        read({"pointcloud": generator.normal(size=(T, N, 2)), "VX": np.zeros((T, N))})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pos": None},
            r"run.npz has no pos or mesh_pos or pointcloud; it has cells, node_type, v",
        ),
        ({"cells": None}, r"run.npz has no cells or triangles; it has pos, node_type"),
        ({"node_type": None}, r"run.npz has no node_type; it has pos, cells, velocity"),
        ({"dt": None}, r"neither times nor dt, so pass time_step=\.\.\.; it has pos"),
        ({"velocity": None, "pressure": None}, r"run.npz has no field, as velocity; it has pos"),
        (
            {"edges": np.ones((2, 9))},
            r"edges has the shape \[2, 9\], which is no field \[T, 5, C\]",
        ),
        ({"velocity": np.ones((T, N + 1, 2))}, r"velocity has the shape \[4, 6, 2\]"),
        ({"pressure": np.ones((T + 1, N))}, r"run.npz: pressure must be \[4, 5, C\]"),
        ({"extra/thing": np.ones(1)}, r"extra/thing is unknown. Pass fields=.* cells/, fields/"),
        ({"node_type": np.full(N, 7)}, r"run.npz: node 0 has the unknown type 7; types are 0 to 6"),
        ({"node_type": np.zeros(N + 1)}, r"run.npz: node_type must be \[5\]"),
        (
            {"cells": np.ones((2, 8), int)},
            r"cells must be \[M, 3\] or \[M, 4\], got \[2, 8\].*tetra",
        ),
        ({"cells": np.array([[0, 1, 9]])}, r"run.npz: triangle 0 has the nodes \[0, 1, 9\]"),
        ({"times": np.array([0.0, 1, 1, 2])}, r"run.npz: times must increase"),
        ({"pos": np.full((N, 2), np.nan)}, r"run.npz: pos is not finite: node 0"),
        ({"cells/hexagon": np.ones((1, 6), int)}, r"run.npz: unknown cell type 'hexagon'"),
    ],
)
def test_bad_arrays(changes, message):
    with pytest.raises(ValueError, match=message):
        read(plain(**changes))


def test_choosing_fields():
    arrays = plain(edges=np.ones((2, 9)), **{"extra/thing": np.ones(1)})
    assert list(read(arrays, fields=["pressure"]).fields) == ["pressure"]
    with pytest.raises(ValueError, match=r"run.npz has no field density, U; it has pos, .*extra"):
        read(arrays, fields=["density", "velocity", "U"])
    np.testing.assert_array_equal(read(plain(dt=None), time_step=2).times, [0, 2, 4, 6])
    # What the file says holds.
    np.testing.assert_array_equal(read(plain(), time_step=2).times, [0, 0.5, 1, 1.5])
