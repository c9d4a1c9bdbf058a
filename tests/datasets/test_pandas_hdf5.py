import builtins

import h5py
import numpy as np
import pandas as pd
import pytest

from pyg_stmamba.datasets.pandas_hdf5 import open_frame, read_frame, write_frame

INDEX = pd.date_range("2020-02-28", periods=7, freq="5min")


def by_hand(path, blocks, columns, key="df", transposed=1, kind="datetime64[ns]", index=None):
    """The fixed layout as pandas documents it by its files: one block a type, columns anywhere."""
    with h5py.File(path, "w") as file:
        group = file.create_group(key)
        group.attrs.update(pandas_type=np.bytes_("frame"), nblocks=len(blocks))

        def put(name, data, kind=None):
            group[name] = data
            group[name].attrs["transposed"] = np.uint8(transposed)
            if kind:
                group[name].attrs["kind"] = np.bytes_(kind)

        put("axis0", np.array(columns, "S"), "string")
        put("axis1", INDEX.as_unit("ns").asi8 if index is None else index, kind)
        for i, (items, values) in enumerate(blocks):
            put(f"block{i}_items", np.array(items, "S"), "string")
            put(f"block{i}_values", values if transposed else values.T)
    return path


def test_reads_the_upstream_file(shared_data):
    path = shared_data / "metr_la" / "raw" / "metr-la.h5"
    frame = read_frame(path)
    assert frame.values.shape == (34272, 29)
    assert frame.values.dtype == np.float64
    assert frame.columns[:2] == ["773869", "767541"]
    index = pd.DatetimeIndex(frame.times)
    assert index.equals(pd.date_range("2012-03-01", periods=34272, freq="5min"))
    with h5py.File(path) as file:
        np.testing.assert_array_equal(frame.values, file["df/block0_values"][()])


@pytest.mark.parametrize("columns", [["b", "a", "ü"], [30, 10, 20]])
def test_writes_what_it_reads(tmp_path, columns):
    values = np.random.default_rng(0).random((7, 3))
    index = INDEX.as_unit("ns").asi8
    write_frame(
        tmp_path / "a.h5",
        values,
        index,
        [str(c).encode() for c in columns] if isinstance(columns[0], str) else columns,
        key="speed",
    )
    frame = read_frame(tmp_path / "a.h5")
    np.testing.assert_array_equal(frame.values, values)
    np.testing.assert_array_equal(frame.times, index)
    assert frame.columns == [str(c) for c in columns]


def test_writes_the_layout_of_the_upstream_file(tmp_path, shared_data):
    write_frame(tmp_path / "a.h5", np.zeros((7, 2)), INDEX.as_unit("ns").asi8, ["1", "2"])
    with (
        h5py.File(tmp_path / "a.h5") as ours,
        h5py.File(shared_data / "metr_la" / "raw" / "metr-la.h5") as theirs,
    ):
        assert set(ours["df"]) == set(theirs["df"])
        for name in ours["df"]:
            mine, upstream = ours["df"][name], theirs["df"][name]
            assert mine.dtype.kind == upstream.dtype.kind
            assert mine.ndim == upstream.ndim
            for key, value in mine.attrs.items():
                assert value == upstream.attrs[key], (name, key)
        for key, value in ours["df"].attrs.items():
            assert value == theirs["df"].attrs[key]


def test_the_same_table_gives_the_same_bytes(tmp_path):
    for name in "ab":
        write_frame(tmp_path / name, np.ones((7, 2)), INDEX.as_unit("ns").asi8, ["1", "2"])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("transposed", [0, 1])
def test_puts_blocks_into_their_columns(tmp_path, transposed):
    floats = np.random.default_rng(0).random((7, 2))
    whole = np.arange(14).reshape(7, 2)
    blocks = [(["d", "a"], floats), (["b", "c"], whole)]
    path = by_hand(tmp_path / "a.h5", blocks, list("abcd"), transposed=transposed)
    expected = pd.concat([pd.DataFrame(values, columns=items) for items, values in blocks], axis=1)[
        list("abcd")
    ]
    frame = read_frame(path)
    assert frame.columns == list("abcd")
    np.testing.assert_array_equal(frame.values, expected.to_numpy())
    with open_frame(path) as opened:
        np.testing.assert_array_equal(opened.rows(2, 5), expected.to_numpy()[2:5])
        np.testing.assert_array_equal(opened.rows(5, 100), expected.to_numpy()[5:])


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s"])
def test_knows_the_units_of_timestamps(tmp_path, unit):
    path = by_hand(
        tmp_path / "a.h5",
        [(["a"], np.zeros((7, 1)))],
        ["a"],
        kind=f"datetime64[{unit}]",
        index=INDEX.as_unit(unit).asi8,
    )
    np.testing.assert_array_equal(read_frame(path).times, INDEX.as_unit("ns").asi8)


def test_finds_the_table(tmp_path):
    block = [(["a"], np.zeros((7, 1)))]
    path = by_hand(tmp_path / "a.h5", block, ["a"], key="t")
    assert read_frame(path).columns == read_frame(path, "t").columns == ["a"]
    with pytest.raises(ValueError, match="asked for the table df; the file has t"):
        read_frame(path, "df")
    with h5py.File(path, "a") as file:
        file.create_group("second")
    with pytest.raises(ValueError, match="the file has second, t"):
        read_frame(path)


@pytest.mark.parametrize("keep", [0, 100, 2000, 20000])
def test_says_that_a_file_is_truncated(tmp_path, keep):
    path = tmp_path / "half.h5"
    write_frame(path, np.ones((500, 9)), np.arange(500), list("abcdefghi"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"half\.h5: truncated, or not an HDF5 file"):
        read_frame(path)


def test_says_where_a_file_is_damaged(tmp_path):
    path = tmp_path / "bad.h5"
    values = np.random.default_rng(0).random((500, 9))
    with h5py.File(path, "w") as file:
        by_hand_path = by_hand(tmp_path / "model.h5", [(["a"], np.zeros((7, 1)))], ["a"])
        with h5py.File(by_hand_path) as model:
            model.copy("df", file)
        del file["df/block0_values"], file["df/axis1"]
        file["df/axis1"] = np.arange(500)
        file["df/axis1"].attrs["kind"] = np.bytes_("datetime64[ns]")
        data = file.create_dataset(
            "df/block0_values",
            data=values[:, :1],
            compression="gzip",
            fletcher32=True,
            chunks=(500, 1),
        )
        data.attrs["transposed"] = np.uint8(1)
        offset = data.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 100] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.h5: /df/block0_values cannot be read"):
        read_frame(path)


def damage(change):
    def apply(path):
        with h5py.File(path, "a") as file:
            change(file["df"])

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.attrs.update(pandas_type=np.bytes_("frame_table")), "pandas frame_table"),
        (lambda g: g.__delitem__("axis1"), "no axis1 in /df"),
        (lambda g: g.__delitem__("block0_values"), "no block0_values"),
        (lambda g: g["axis0"].attrs.update(kind=np.bytes_("object")), "kind 'object'"),
        (lambda g: g["axis1"].attrs.update(tz=np.bytes_("UTC")), "without a time zone"),
        (lambda g: g["axis1"].attrs.update(kind=np.bytes_("integer")), "not an index of time"),
        (lambda g: g["block0_values"].attrs.update(transposed=0), r"shape \(7, 2\)"),
        (lambda g: g["block0_items"].__setitem__(0, b"zz"), "do not hold each column once"),
        (lambda g: g["block0_items"].__setitem__(0, b"b"), "do not hold each column once"),
    ],
)
def test_says_what_is_not_as_it_should_be(tmp_path, change, message):
    path = by_hand(tmp_path / "odd.h5", [(["a", "b"], np.zeros((7, 2)))], ["a", "b"])
    damage(change)(path)
    with pytest.raises(ValueError, match=message) as caught:
        read_frame(path)
    assert "odd.h5" in str(caught.value)


def test_refuses_to_write_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match=r"\(7, 2\) for 7 timestamps and 3 columns"):
        write_frame(tmp_path / "a.h5", np.zeros((7, 2)), np.arange(7), list("abc"))


def test_names_the_extra_when_h5py_is_absent(tmp_path, monkeypatch):
    imported = builtins.__import__

    def without_h5py(name, *args, **kwargs):
        if name == "h5py":
            raise ImportError("No module named 'h5py'")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    with pytest.raises(ImportError, match=r"pip install pyg-stmamba\[train\]"):
        read_frame(tmp_path / "a.h5")


def test_an_absent_file_is_an_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_frame(tmp_path / "none.h5")
