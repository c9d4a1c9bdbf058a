import numpy as np
import pytest

from pyg_stmamba.data.mesh_files.frame_series import FrameSeries
from pyg_stmamba.data.mesh_files.series_fields import SeriesFields
from pyg_stmamba.data.mesh_files.snapshot import Snapshot

POINTS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
CELLS = {"triangle": np.array([[0, 1, 2], [0, 2, 3]])}


class InMemory(FrameSeries):
    def __init__(self, name, fields, times=(0, 1, 2, 3), points=POINTS, cells=None, patches=None):
        super().__init__(np.array(times), name)
        self.fields, self.points, self.patches = fields, points, patches or {}
        self.cells = CELLS if cells is None else cells

    def read(self, frame):
        fields = {name: values[frame] for name, values in self.fields.items()}
        return Snapshot(self.points, self.cells, fields, self.patches)

    def where(self, frame):
        return f"{self.name}{frame}.vtu"


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_series_are_joined():
    velocity, pressure = random(4, 4, 2), random(4, 4)
    one = InMemory("one", {"u": np.pad(velocity, ((0, 0), (0, 0), (0, 1)))})
    two = InMemory("two", {"p": pressure, "id": np.tile(np.arange(4), (4, 1))})
    source = SeriesFields([one, two])
    assert source.name == "one"
    assert source.names == ["u", "p", "id"]
    assert source.chosen(None, ()) == {"u": "u", "p": "p"}
    assert source.chosen(None, ("p",)) == {"u": "u"}
    assert source.chosen(["id"], ()) == {"id": "id"}
    assert source.chosen("id", ()) == {"id": "id"}
    assert source.chosen({"velocity": "u"}, ()) == {"velocity": "u"}
    np.testing.assert_array_equal(source.frames("u")[:], velocity)
    np.testing.assert_array_equal(source.frames("p")[1:3], pressure[1:3, :, None])
    with pytest.raises(ValueError, match="one has no field 'w'; its fields are u, p, id"):
        source.frames("w")


def test_chosen_frames():
    pressure = random(4, 4, 1)
    for frames in (slice(1, None), slice(None, None, 2), slice(1, 3)):
        source = SeriesFields([InMemory("a", {"p": pressure}, (0, 1, 4, 9))], frames=frames)
        np.testing.assert_array_equal(source.times, np.array([0, 1, 4, 9])[frames])
        np.testing.assert_array_equal(source.frames("p")[:], pressure[frames])
    with pytest.raises(ValueError, match=r"a has 4 frames, and none are in slice\(7, None, None\)"):
        SeriesFields([InMemory("a", {"p": pressure})], frames=slice(7, None))


def test_nodes_in_another_order_are_matched():
    order = np.array([2, 0, 3, 1])
    place = np.argsort(order)
    pressure = random(4, 4)
    other = InMemory(
        "b",
        {"p": pressure[:, order]},
        points=POINTS[order] + 1e-9,
        cells={"triangle": place[CELLS["triangle"]]},
    )
    source = SeriesFields([InMemory("a", {"u": random(4, 4, 3)}), other])
    np.testing.assert_array_equal(source.frames("p")[:][..., 0], pressure)


def test_quadratic_and_linear_series_are_joined():
    middles = (POINTS[[0, 1, 2, 2, 0]] + POINTS[[1, 2, 0, 3, 3]]) / 2
    # Nodes on edges come first in the file.
    cells = {"triangle6": np.array([[5, 6, 7, 0, 1, 2], [5, 7, 8, 2, 3, 4]])}
    velocity, pressure = random(4, 9, 3), random(4, 4)
    one = InMemory("u", {"u": velocity}, points=np.concatenate([middles, POINTS]), cells=cells)
    source = SeriesFields([one, InMemory("p", {"p": pressure})])
    assert source.mesh.num_nodes == 4
    np.testing.assert_array_equal(source.frames("u")[:], velocity[:, 5:])
    np.testing.assert_array_equal(source.frames("p")[:][..., 0], pressure)


def test_patches_follow_their_nodes():
    points = np.concatenate([[[9, 9, 0]], POINTS])
    cells = {"triangle": CELLS["triangle"] + 1}
    patches = {"left": np.array([1, 4]), "lost": np.array([0])}
    series = InMemory("a", {"p": random(4, 5)}, points=points, cells=cells, patches=patches)
    source = SeriesFields([series])
    assert source.patches["left"].tolist() == [0, 3]
    assert source.patches["lost"].tolist() == []


def test_names_that_fenics_numbered_are_those_of_the_files():
    velocity = InMemory("velocity", {"f_20": random(4, 4, 3)})
    pressure = InMemory("pressure", {"f_21": random(4, 4), "f_22": random(4, 4)})
    source = SeriesFields([velocity, pressure])
    assert source.names == ["velocity", "f_21", "f_22"]
    np.testing.assert_array_equal(source.frames("f_20")[:], source.frames("velocity")[:])


@pytest.mark.parametrize("moved", [0, 2, 3])
def test_third_components(moved):
    """They stay if one of the first, the middle and the last frame needs them."""
    flow = np.zeros((4, 4, 3), np.float32)
    flow[:, :, 0] = 1
    assert SeriesFields([InMemory("a", {"u": flow})]).frames("u").shape[2] == 2
    assert SeriesFields([InMemory("a", {"u": flow})], planar=False).frames("u").shape[2] == 3
    flow[moved, 1, 2] = 0.1
    assert SeriesFields([InMemory("a", {"u": flow})]).frames("u").shape[2] == 3
    later = SeriesFields([InMemory("a", {"u": flow})], frames=slice(1, 2)).frames("u")
    assert later.shape[2] == 2
    space = POINTS + [[0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    cells = {"tetra": np.array([[0, 1, 2, 3]])}
    flow[..., 2] = 0
    solid = InMemory("a", {"u": flow}, points=space, cells=cells)
    assert SeriesFields([solid]).frames("u").shape[2] == 3


def test_a_third_component_in_a_frame_between_is_refused():
    flow = np.zeros((4, 4, 3), np.float32)
    flow[1, 1] = [1, 1, 0.5]
    frames = SeriesFields([InMemory("a", {"u": flow})]).frames("u")
    with pytest.raises(
        ValueError, match=r"u in frame 1 \(a1.vtu\) has 3 .* planar=False keeps all"
    ):
        frames[0:2]


def test_what_does_not_fit():
    one = InMemory("one", {"p": random(4, 4)})

    def joined_with(**other):
        SeriesFields([one, InMemory("two", {"q": random(9, other.pop("nodes", 4))}, **other)])

    with pytest.raises(
        ValueError, match=r"two and one .* has 3 frames from t = 0 to 2, the other 4 frames from"
    ):
        joined_with(times=(0, 1, 2))
    with pytest.raises(
        ValueError, match=r"cannot be joined: the one has 4 frames from t = 0 to 3.5"
    ):
        joined_with(times=(0, 1, 2, 3.5))
    with pytest.raises(ValueError, match="their meshes have different nodes, 4 and 4 of them"):
        joined_with(points=POINTS * 1.1)
    with pytest.raises(ValueError, match="their meshes have different nodes, 3 and 4 of them"):
        joined_with(cells={"triangle": np.array([[0, 1, 2]])})
    with pytest.raises(ValueError, match="both one and two hold the field 'p'"):
        SeriesFields([one, InMemory("two", {"p": random(4, 4)})])
    with pytest.raises(
        ValueError, match=r"the mesh of two0.vtu is wrong: triangle 0 has the nodes"
    ):
        joined_with(cells={"triangle": np.array([[0, 1, 4]])})
