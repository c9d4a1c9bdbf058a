from xml.etree import ElementTree

import numpy as np
import pytest

from pyg_stmamba.data.mesh_files.xdmf_data import item_of, read_item

h5py = pytest.importorskip("h5py")


def read(path, text):
    return read_item(item_of(ElementTree.fromstring(text), path), path)


def test_numbers_in_the_text(tmp_path):
    values = read(tmp_path / "a.xdmf", '<DataItem Dimensions="2 2">1 2.5\n -3e-2 4</DataItem>')
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, np.array([[1, 2.5], [-3e-2, 4]], np.float32))
    values = read(
        tmp_path / "a.xdmf",
        '<DataItem Dimensions="2" DataType="Int" Precision="8">7 123456789012</DataItem>',
    )
    assert values.dtype == np.int64
    assert values.tolist() == [7, 123456789012]


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i4", "<i8", "|u1", "<u4"])
def test_numbers_in_a_raw_file(tmp_path, dtype):
    expected = np.arange(6).astype(dtype).reshape(3, 2)
    (tmp_path / "a.bin").write_bytes(b"12345" + expected.tobytes() + b"tail")
    name = {"f": "Float", "i": "Int", "u": "UInt"}[np.dtype(dtype).kind]
    order = "Big" if dtype[0] == ">" else "Little"
    values = read(
        tmp_path / "a.xdmf",
        f'<DataItem Dimensions="3 2" NumberType="{name}" Precision="{dtype[2]}" Format="Binary" '
        f'Endian="{order}" Seek="5"> a.bin </DataItem>',
    )
    np.testing.assert_array_equal(values, expected)


def test_numbers_in_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x/y"] = np.arange(4.0)
    item = '<DataItem Dimensions="{}" Format="HDF">{}</DataItem>'
    values = read(tmp_path / "a.xdmf", item.format("4 1", "a.h5:/x/y"))
    np.testing.assert_array_equal(values, np.arange(4.0)[:, None])
    with pytest.raises(ValueError, match=r"data set /x/z, which is not in a.h5"):
        read(tmp_path / "a.xdmf", item.format("4 1", "a.h5:/x/z"))
    with pytest.raises(ValueError, match=r"data set /x, which is not in a.h5"):
        read(tmp_path / "a.xdmf", item.format("4 1", "a.h5:/x"))
    with pytest.raises(FileNotFoundError, match=r"b.h5, which is not there"):
        read(tmp_path / "a.xdmf", item.format("4 1", "b.h5:/x/y"))
    with pytest.raises(ValueError, match=r"of shape \[5\], but 'a.h5:/x/y' holds 4 numbers"):
        read(tmp_path / "a.xdmf", item.format("5", "a.h5:/x/y"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<DataItem Dimensions="2" Format="SQL"/>', "format SQL; what can be read is"),
        ('<DataItem Dimensions="2" ItemType="HyperSlab"/>', "DataItem of type HyperSlab"),
        ('<DataItem Dimensions="2" Reference="XML">/x</DataItem>', "no references"),
        (
            '<DataItem Dimensions="two">1 2</DataItem>',
            "cannot be understood: {'Dimensions': 'two'}",
        ),
        ('<DataItem Dimensions="2" NumberType="Text">1 2</DataItem>', "cannot be understood"),
        ('<DataItem Dimensions="2" Precision="3">1 2</DataItem>', "cannot be understood"),
        ('<DataItem Dimensions="2">1 x</DataItem>', "not of numbers: could not convert"),
        ('<DataItem Dimensions="2">1 2 3</DataItem>', r"shape \[2\], but '1 2 3' holds 3 numbers"),
    ],
)
def test_bad_items(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.xdmf", text)


def test_missing_items(tmp_path):
    with pytest.raises(ValueError, match="an array without a DataItem"):
        item_of(None, tmp_path / "a.xdmf")
    with pytest.raises(FileNotFoundError, match=r"a.bin, which is not there"):
        read(tmp_path / "a.xdmf", '<DataItem Dimensions="2" Format="Binary">a.bin</DataItem>')
