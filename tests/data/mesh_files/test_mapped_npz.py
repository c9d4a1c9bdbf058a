import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pyg_stmamba.data.mesh_files.mapped_array import MappedArray
from pyg_stmamba.data.mesh_files.mapped_npz import MappedNpz, write_npz

KINDS = st.one_of(
    hnp.floating_dtypes(endianness="?"),
    hnp.integer_dtypes(endianness="?"),
    hnp.boolean_dtypes(),
    hnp.unicode_string_dtypes(min_len=1, max_len=5),
)
ARRAYS = st.dictionaries(
    st.text("abc/.äz", min_size=1, max_size=5),
    KINDS.flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
    ),
    max_size=3,
)


class Lazy:
    """Frames that remember what was asked for."""

    def __init__(self, values):
        self.values, self.shape, self.asked = values, values.shape, []

    def __getitem__(self, frames):
        assert isinstance(frames, slice)
        self.asked.append(len(self.values[frames]))
        return self.values[frames]


@settings(deadline=None, max_examples=60)
@given(ARRAYS, st.booleans())
def test_reads_what_numpy_writes(tmp_path_factory, arrays, compressed):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    with path.open("wb") as file, zipfile.ZipFile(file, "w", 8 if compressed else 0) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, values)
    read = MappedNpz(path)
    assert list(read) == list(arrays)
    assert len(read) == len(arrays)
    for name, values in arrays.items():
        assert tuple(read[name].shape) == values.shape
        assert read[name].dtype == values.dtype
        np.testing.assert_array_equal(np.asarray(read[name]), values)


@settings(deadline=None, max_examples=60)
@given(ARRAYS)
def test_numpy_reads_what_is_written(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    write_npz(path, arrays)
    with np.load(path) as read:
        assert read.files == list(arrays)
        for name, values in arrays.items():
            assert read[name].shape == values.shape
            assert read[name].dtype == values.dtype
            np.testing.assert_array_equal(read[name], values)


def test_members_that_lie_there_are_mapped(tmp_path):
    values = np.random.default_rng(0).normal(size=(10, 4, 2))
    np.savez(tmp_path / "plain.npz", big=values, columns=np.asfortranarray(values), none=values[:0])
    plain = MappedNpz(tmp_path / "plain.npz")
    assert isinstance(plain["big"], MappedArray)
    assert isinstance(plain["columns"], np.ndarray)
    assert isinstance(plain["none"], np.ndarray)
    np.savez_compressed(tmp_path / "small.npz", big=values)
    assert isinstance(MappedNpz(tmp_path / "small.npz")["big"], np.ndarray)
    for copy in (plain, pickle.loads(pickle.dumps(plain))):
        np.testing.assert_array_equal(copy["big"][3:5], values[3:5])
        np.testing.assert_array_equal(copy["columns"], values)
    with pytest.raises(KeyError):
        plain["absent"]


def test_fields_are_written_part_by_part(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(11, 4, 2)).astype(np.float32)
    monkeypatch.setattr(
        "pyg_stmamba.data.mesh_files.mapped_npz.BYTES_AT_ONCE", 3 * values[0].nbytes + 1
    )
    lazy = Lazy(values)
    write_npz(tmp_path / "lazy.npz", {"a": lazy, "b": values})
    assert max(lazy.asked) == 3
    assert sum(lazy.asked) == 12  # and one frame to see the type of the values
    with np.load(tmp_path / "lazy.npz") as read:
        for name in "ab":
            assert read[name].dtype == np.float32
            np.testing.assert_array_equal(read[name], values)


def test_frames_larger_than_a_part_and_no_frames(tmp_path, monkeypatch):
    monkeypatch.setattr("pyg_stmamba.data.mesh_files.mapped_npz.BYTES_AT_ONCE", 1)
    values = np.arange(12, dtype=np.int16).reshape(3, 2, 2)
    write_npz(tmp_path / "a.npz", {"a": Lazy(values), "none": Lazy(values[:0])})
    with np.load(tmp_path / "a.npz") as read:
        np.testing.assert_array_equal(read["a"], values)
        assert read["none"].shape == (0, 2, 2)


def test_the_same_arrays_give_the_same_bytes(tmp_path, monkeypatch):
    arrays = {"x": np.arange(5.0), "y": np.array("text")}
    write_npz(tmp_path / "one", arrays)
    monkeypatch.setattr("time.localtime", lambda *_: (2031, 5, 5, 5, 5, 5, 0, 1, 0))
    write_npz(tmp_path / "two", arrays)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_damaged_files(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(FileNotFoundError, match=r"no file .*a\.npz"):
        MappedNpz(path)
    write_npz(path, {"x": np.arange(1000.0), "none": np.zeros((0, 2))})
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a\.npz cannot be read as an \.npz .* cut off"):
            MappedNpz(path)
    path.write_bytes(b"PX" + whole[2:])
    with pytest.raises(ValueError, match=r"there is no member x\.npy where it should be"):
        MappedNpz(path)["x"]


def test_a_header_that_promises_more_than_there_is(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path, {"x": np.arange(1000.0)})
    path.write_bytes(path.read_bytes().replace(b"(1000,)", b"(1001,)"))
    with pytest.raises(ValueError, match=r"x\.npy has 8128 bytes, not those of \(1001,\)"):
        MappedNpz(path)["x"]


def test_checksums_of_compressed_members(tmp_path):
    path = tmp_path / "a.npz"
    values = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)
    np.savez_compressed(path, x=values)
    broken = bytearray(path.read_bytes())
    broken[3000] ^= 1
    path.write_bytes(broken)
    with pytest.raises(ValueError, match="cannot be read as"):
        MappedNpz(path)["x"]


def test_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="Python objects, which are refused"):
        MappedNpz(tmp_path / "a.npz")["x"]
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_npz(tmp_path / "b.npz", {"x": np.array([{}], dtype=object)})
    assert not (tmp_path / "b.npz").exists()
